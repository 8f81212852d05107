//! Imports between the files of a folder, and the search for cycles among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module, as the names of its path.
type Module = Vec<String>;
/// The imports of each module.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Returns paths that begin with `crate`, `self` or `super` in a piece of code, with lists in braces expanded.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            // A later part of a path, or a visibility.
            let is_part = before == ':' || before == '_' || before.is_alphanumeric();
            if !is_part && !code[..at].ends_with("(in ") {
                take(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Takes one path, or a tree of paths, from the front of `code`. Returns the rest.
fn take<'a>(code: &'a str, way: &mut Vec<&'a str>, found: &mut Vec<Vec<&'a str>>) -> &'a str {
    let depth = way.len();
    let mut rest = code.trim_start();
    loop {
        if let Some(list) = rest.strip_prefix('{') {
            rest = list.trim_start();
            while !rest.starts_with('}') && !rest.is_empty() {
                rest = take(rest, way, found);
                let end = rest.find([',', '}']).unwrap_or(rest.len());
                rest = rest[end..].trim_start_matches(',').trim_start();
            }
            rest = rest.strip_prefix('}').unwrap_or(rest);
            break;
        }
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        way.push(name);
        rest = after;
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => {
                found.push(way.clone());
                break;
            }
        }
    }
    way.truncate(depth);
    rest
}

/// Returns the imports among `files`: paths below a crate's `src`, each with its code.
pub(crate) fn imports<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Imports {
    let files = files.into_iter().map(|(path, code)| {
        let names = path.with_extension("");
        let mut module: Module = names
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        module.retain(|name| name != "mod");
        (module, code)
    });
    let files: BTreeMap<Module, &str> = files.collect();
    let owner = |path: &[String]| {
        let prefixes = (1..=path.len()).rev().map(|length| path[..length].to_vec());
        prefixes.into_iter().find(|way| files.contains_key(way))
    };
    let mut imports = Imports::new();
    for (module, code) in &files {
        let mut used = BTreeSet::new();
        for path in paths(code) {
            let mut way = module.clone();
            let mut names = path.into_iter();
            let mut first = names.next();
            while let Some("crate" | "self" | "super") = first {
                match first {
                    Some("crate") => way.clear(),
                    Some("super") => drop(way.pop()),
                    _ => {}
                }
                first = names.next();
            }
            way.extend(first.into_iter().chain(names).map(str::to_owned));
            used.extend(owner(&way));
        }
        // A module re-exports items of those below it, so an import of these from it is not counted.
        let is_below = |other: &&Module| other.len() > module.len() && other.starts_with(module);
        used.extend(files.keys().filter(is_below).cloned());
        used.remove(module);
        imports.insert(module.clone(), used);
    }
    imports
}

/// Returns a cycle of imports, if there is one: each imports from the next, the last from the first.
pub(crate) fn cycle(imports: &Imports) -> Option<Vec<String>> {
    fn visit<'a>(
        imports: &'a Imports,
        module: &'a Module,
        way: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> bool {
        if let Some(at) = way.iter().position(|other| *other == module) {
            way.drain(..at);
            return true;
        }
        if done.contains(module) {
            return false;
        }
        way.push(module);
        let used = imports.get(module).into_iter().flatten();
        for other in used {
            if visit(imports, other, way, done) {
                return true;
            }
        }
        way.pop();
        done.insert(module);
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    let found = imports
        .keys()
        .any(|module| visit(imports, module, &mut way, &mut done));
    found.then(|| way.iter().map(|module| module.join("/")).collect())
}
