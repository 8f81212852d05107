//! Call sites of the engine that change the disk: the list of them, from its source, and how often each was reached.
//!
//! Owns: [`CallSite`], [`all`], the counts. A call site is one operation in the source, named by its file, its function
//! and the operation.
//!
//! Invariant: counts belong to a thread. The simulated machine runs on one thread, so several can run at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tonnage_engine::io::Call;
use tonnage_engine::vocabulary::ClientId;

/// Operations of the seam, and loops over them, that change the disk or make a change durable.
const CHANGES: [&str; 9] = [
    "write_all",
    "write_all_and_sync",
    "sync_data",
    "sync",
    "sync_dir",
    "unlink",
    "create_dir",
    "allocate",
    "set_len",
];
/// Operations that do neither; `open` changes the disk if it creates.
const OTHERS: [&str; 14] = [
    "open",
    "advise",
    "read_up_to",
    "read_at_least",
    "read_exact",
    "read_cached",
    "map_cached",
    "load",
    "write_back",
    "len",
    "list_dir",
    "list_files",
    "lock",
    "space",
];

/// One operation in the source that changes the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSite {
    /// Its file below `engine/src`.
    pub file: String,
    /// The line of its `Class::...call()`.
    pub line: u32,
    /// Its name in tables: file, function, operation, and a number if a function has several of the kind.
    pub name: String,
}

/// Returns all call sites, in the order of the source.
pub fn all() -> &'static [CallSite] {
    static ALL: OnceLock<Vec<CallSite>> = OnceLock::new();
    ALL.get_or_init(|| scan().unwrap_or_else(|why| panic!("{why}")))
}

/// Reads the engine's source. Fails if the operation of a call is not clear.
pub fn scan() -> Result<Vec<CallSite>, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../engine/src");
    let mut files = Vec::new();
    list(&top, &mut files);
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let inside = path.strip_prefix(&top).unwrap_or(&path);
        if inside.starts_with("io") || inside.ends_with("tests.rs") {
            continue;
        }
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        found.extend(scan_text(&inside.display().to_string(), &text)?);
    }
    Ok(found)
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

/// Returns the call sites of one file.
fn scan_text(file: &str, text: &str) -> Result<Vec<CallSite>, String> {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    let mut found: Vec<CallSite> = Vec::new();
    for (at, _) in code.match_indices(".call()") {
        let before = &code[..at];
        let line = before.matches('\n').count() as u32 + 1;
        let (operation, arguments) = enclosing(code, at).ok_or_else(|| {
            format!("{file}:{line}: a call outside of the arguments of an operation")
        })?;
        let creates = operation == "open" && arguments.contains("OpenMode::CreateNew");
        if !creates && !CHANGES.contains(&operation) {
            if OTHERS.contains(&operation) {
                continue;
            }
            return Err(format!(
                "{file}:{line}: {operation} is not an operation of the seam"
            ));
        }
        let function = before.rsplit("fn ").next().unwrap_or_default();
        let function = &function[..function.find(|c: char| !is_word(c)).unwrap_or(0)];
        let operation = if creates { "create" } else { operation };
        let plain = format!("{file} {function}: {operation}");
        let alike = |place: &&CallSite| {
            place.name == plain
                || place
                    .name
                    .strip_prefix(&plain)
                    .is_some_and(|rest| rest.starts_with(' '))
        };
        let name = match found.iter().filter(alike).count() {
            0 => plain,
            earlier => format!("{plain} {}", earlier + 1),
        };
        let file = file.to_owned();
        found.push(CallSite { file, line, name });
    }
    Ok(found)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the name before the innermost list of arguments around `at`, and that list.
fn enclosing(code: &str, at: usize) -> Option<(&str, &str)> {
    let mut depth = 0;
    let open = code[..at].char_indices().rev().find(|(_, c)| {
        depth += match c {
            ')' => 1,
            '(' => -1,
            _ => 0,
        };
        depth < 0
    });
    let open = open?.0;
    let name = code[..open]
        .rfind(|c| !is_word(c))
        .map_or(0, |before| before + 1);
    let mut depth = 0;
    let close = code[open..].char_indices().find(|(_, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    Some((&code[name..open], &code[open..open + close?.0]))
}

thread_local! {
    static COUNTS: RefCell<HashMap<Call, u64>> = RefCell::default();
}

/// Counts an operation of this call that changed the disk of this thread's machine, or tried to, whoever's it is.
pub(crate) fn count(call: Call) {
    let call = call.for_client(ClientId::ENGINE);
    COUNTS.with_borrow_mut(|counts| *counts.entry(call).or_default() += 1);
}

/// Returns the name of the call site, or `None` for a call of a test.
pub fn name_of(call: Call) -> Option<&'static str> {
    let file = call.site.file().strip_prefix("engine/src/")?;
    let here = |place: &&CallSite| place.line == call.site.line() && place.file == file;
    all().iter().find(here).map(|place| place.name.as_str())
}

/// Returns how often this thread reached each call site since the last call of this function, by call site and class.
/// One that was not reached has an empty class. Calls of tests are left out.
pub fn take_counts() -> Vec<((&'static str, &'static str), u64)> {
    let counts = COUNTS.take();
    let mut taken: Vec<_> = all()
        .iter()
        .map(|place| ((place.name.as_str(), ""), 0))
        .collect();
    for (call, count) in counts {
        if !call.site.file().starts_with("engine/src/") {
            continue;
        }
        let Some(name) = name_of(call) else {
            panic!(
                "{} changed the disk and was not found in the source; was it changed since it was compiled?",
                call.site
            );
        };
        taken.push(((name, call.class.name()), count));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a call site has the operation to which it belongs, and a name that does not depend on its line. A read
    /// is no call site.
    #[test]
    fn call_sites_are_named_by_function_and_operation() {
        let text = "async fn put(f: F) {\n  exact::write_all(f.file(), Class::Journal.call(), 0, vec![a()]).await;\n  \
                    f.sync_data(class.call());\n  f.sync_data(\n    Class::Journal.call(),\n  );\n}\n\
                    fn make() { io.open(Class::Journal.call(), &p, OpenMode::CreateNew); io.open(Class::Journal.call(), &p, mode) }\n";
        let places = scan_text("x.rs", text).unwrap();
        let names: Vec<_> = places
            .iter()
            .map(|place| (place.line, place.name.as_str()))
            .collect();
        let wanted = [
            (2, "x.rs put: write_all"),
            (3, "x.rs put: sync_data"),
            (5, "x.rs put: sync_data 2"),
            (8, "x.rs make: create"),
        ];
        assert_eq!(names, wanted);
        assert!(scan_text("x.rs", "fn f() { let call = Class::Journal.call(); }").is_err());
        assert!(scan_text("x.rs", "fn f() { hidden(Class::Journal.call()) }").is_err());
    }
}
