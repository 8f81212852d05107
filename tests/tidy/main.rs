//! Rules of the project that the compiler does not check: the direction of imports, the length of a file, its header.

mod cycles;

use std::fs;
use std::path::{Path, PathBuf};

use tonnage_tests::machine::call_sites;

/// The modules of the engine in order: each may use those before it, and none after it (ARCHITECTURE.md).
const ENGINE: [&str; 33] = [
    "sync",
    "digest",
    "extent",
    "limits",
    "vocabulary",
    "buffer",
    "options",
    "round_robin",
    "client_turns",
    "format",
    "io",
    "error",
    "poison",
    "in_flight",
    "pace",
    "jobs",
    "memory",
    "lease",
    "journal",
    "segment",
    "table",
    "state",
    "finished_blob",
    "catalog",
    "collection",
    "scrub",
    "compaction",
    "checkpoint",
    "commit",
    "upload",
    "recovery",
    "store",
    "fsck",
];
/// The modules of the server, in the same order.
const SERVER: [&str; 19] = [
    "clock",
    "wall_clock",
    "kept_files",
    "reason",
    "repeated",
    "tls",
    "documents",
    "transport",
    "oci",
    "access",
    "registry",
    "embedded",
    "outgoing",
    "repair",
    "admin",
    "runtime",
    "telemetry",
    "frontends",
    "server",
];
/// Most columns of a comment, which `rustfmt` does not break.
const COLUMNS_MAX: usize = 120;
/// The maximum number of lines of a file.
const LINES_MAX: usize = 800;
/// Names that say nothing about a file's content.
const NAMELESS: [&str; 6] = ["util", "utils", "common", "helpers", "manager", "misc"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns every Rust file below `folder`, with its text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

fn all() -> Vec<(PathBuf, String)> {
    ["engine", "server", "tools", "tests", "benches"]
        .iter()
        .flat_map(|name| sources(&top().join(name)))
        .collect()
}

/// Returns the code of a file without its unit tests, which may import anything.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

/// Returns the modules named after `crate::` in a piece of code.
fn imports(code: &str) -> Vec<&str> {
    let word = |rest: &str| {
        rest.find(|c: char| !c.is_ascii_lowercase() && c != '_')
            .unwrap_or(rest.len())
    };
    code.split("crate::")
        .skip(1)
        .map(|rest| &rest[..word(rest)])
        .filter(|name| !name.is_empty())
        .collect()
}

/// Checks that no import is against the order. Returns the number of imports.
fn check_order(source: &Path, order: &[&str]) -> usize {
    let rank = |name: &str| order.iter().position(|module| *module == name);
    let (mut looked, mut wrong) = (0, Vec::new());
    for (path, text) in sources(source) {
        let inside = path.strip_prefix(source).unwrap();
        let module = inside
            .iter()
            .next()
            .unwrap()
            .to_string_lossy()
            .replace(".rs", "");
        // Unit tests may import anything.
        let tests = inside.ends_with("tests.rs") || inside.iter().any(|folder| folder == "tests");
        if module == "lib" || tests {
            continue;
        }
        let own =
            rank(&module).unwrap_or_else(|| panic!("module {module} is not in the order; add it"));
        for name in imports(code(&text)) {
            looked += 1;
            if rank(name).is_some_and(|other| other > own) {
                wrong.push(format!("{} uses {name}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the order: {wrong:#?}");
    looked
}

/// Guards: imports inside the engine follow the order of its modules.
#[test]
fn modules_of_the_engine_import_in_order() {
    assert!(
        check_order(&top().join("engine/src"), &ENGINE) > 200,
        "imports were not recognised"
    );
}

/// Guards: imports inside the server follow the order of its modules, and only its edges know HTTP or the engine's
/// store.
#[test]
fn modules_of_the_server_import_in_order() {
    assert!(
        check_order(&top().join("server/src"), &SERVER) > 40,
        "imports were not recognised"
    );
    for folder in ["oci", "registry"] {
        for (path, text) in sources(&top().join("server/src").join(folder)) {
            let prose = |line: &&str| line.trim_start().starts_with("//");
            let lines: String = code(&text).lines().filter(|line| !prose(line)).collect();
            for word in ["hyper", "axum", "http::", "StatusCode"] {
                assert!(!lines.contains(word), "{} knows {word}", path.display());
            }
            for import in lines.split("tonnage_engine::").skip(1) {
                let import = import.split(';').next().unwrap_or_default();
                let knows = ["Store", "View", "Repository"].map(|name| import.contains(name));
                assert!(
                    !knows.contains(&true),
                    "{} imports {import}",
                    path.display()
                );
            }
        }
    }
}

/// Guards: use cases and ports import only the vocabulary of the engine, so that other storage can replace it.
#[test]
fn use_cases_know_only_the_vocabulary_of_the_engine() {
    let server = top().join("server/src");
    let mut looked = 0;
    for folder in ["oci", "registry"] {
        for (path, text) in sources(&server.join(folder)) {
            let prose = |line: &&str| line.trim_start().starts_with("//");
            let lines: String = text.lines().filter(|line| !prose(line)).collect();
            for name in lines.split("tonnage_engine").skip(1) {
                looked += 1;
                let allowed = ["::vocabulary::", "::limits::"];
                let known = allowed.iter().any(|module| name.starts_with(module));
                assert!(known, "{} imports more of the engine", path.display());
            }
        }
    }
    assert!(looked > 15, "imports were not recognised");
}

/// Guards: the transport imports no front end, and no front end another one.
#[test]
fn front_ends_know_the_transport_and_not_each_other() {
    let server = top().join("server/src");
    let names = |text: &str, words: &[&str]| {
        let found = words.iter().find(|word| text.contains(**word));
        found.map(|word| (*word).to_owned())
    };
    for (path, text) in sources(&server.join("transport")) {
        let found = names(code(&text), &["tonnage_engine", "axum"]);
        assert_eq!(found, None, "{} imports it", path.display());
    }
    for (own, other) in [("oci", "frontends::admin"), ("admin", "frontends::oci")] {
        for (path, text) in sources(&server.join("frontends").join(own)) {
            let found = names(code(&text), &[other]);
            assert_eq!(found, None, "{} imports it", path.display());
        }
    }
}

/// Guards: imports among the files of the transport, and of the front ends, form no cycle.
#[test]
fn files_of_the_server_import_without_cycles() {
    let server = top().join("server/src");
    for folder in ["transport", "frontends"] {
        let files = sources(&server.join(folder));
        let files = files.iter().filter(|(path, _)| !path.ends_with("tests.rs"));
        let files = files.map(|(path, text)| (path.strip_prefix(&server).unwrap(), code(text)));
        let imports = cycles::imports(files);
        let count = imports.values().map(std::collections::BTreeSet::len);
        assert!(count.sum::<usize>() > 50, "imports were not recognised");
        assert_eq!(cycles::cycle(&imports), None, "in {folder}");
    }
}

/// Guards: the check itself: it finds a cycle through lists and through modules above, and none where there is none.
#[test]
fn cycles_of_imports_are_found() {
    let cyclic = |c: &str| {
        let files = [
            ("a/mod.rs", "mod b; mod c;"),
            ("a/b.rs", "use super::{\n    c::{self, C},\n};"),
            ("a/c.rs", c),
        ];
        let files = files.iter().map(|(path, code)| (Path::new(*path), *code));
        cycles::cycle(&cycles::imports(files)).is_some()
    };
    assert!(cyclic("fn c() { crate::a::b::b() }"));
    assert!(cyclic("use super::D;"));
    assert!(!cyclic(
        "pub(in crate::a) struct C; use std::b; use super::super::d;"
    ));
}

/// Guards: every file begins with its purpose, has at most 800 lines and no wide comment, and a name that says what it
/// contains.
#[test]
fn files_open_with_their_purpose_and_stay_short() {
    let files = all();
    assert!(files.len() > 150, "{} files were found", files.len());
    for (path, text) in files {
        assert!(
            text.starts_with("//!"),
            "{} does not open with //!",
            path.display()
        );
        assert!(
            text.lines().count() <= LINES_MAX,
            "{} has more than {LINES_MAX} lines",
            path.display()
        );
        let is_wide =
            |line: &&str| line.trim_start().starts_with("//") && line.chars().count() > COLUMNS_MAX;
        let wide = text.lines().find(is_wide);
        assert_eq!(wide, None, "{} has a wide comment", path.display());
        let name = path.file_stem().unwrap().to_string_lossy();
        assert!(
            !NAMELESS.contains(&&*name),
            "{} has a name that says nothing",
            path.display()
        );
    }
}

/// Guards: the check itself: it finds an import against the order.
#[test]
fn imports_are_recognised() {
    let text = "use crate::store::Store;\nfn f() { crate::io::exact() }\n#[cfg(test)]\nmod tests { use crate::fsck; }";
    assert_eq!(imports(code(text)), ["store", "io"]);
}

/// Guards: the list of call sites that change the disk is complete, because every call of the seam is written in the
/// arguments of its operation. `sim --tables` and `--call-sites` use that list.
#[test]
fn every_change_of_the_disk_is_a_call_site() {
    let places = call_sites::scan().unwrap_or_else(|why| panic!("{why}"));
    assert!(places.len() > 50, "only {} places were found", places.len());
}

/// Guards: the schedules of `tests/races` switch threads at every lock, flag and wake-up of the engine, because all of
/// these come from its `sync`. The backends behind the seam, which are replaced there, have their own.
#[test]
fn what_threads_share_comes_from_one_module() {
    let shared = [
        "parking_lot",
        "arc_swap",
        "Mutex",
        "RwLock",
        "OnceLock",
        "LazyLock",
        "AtomicBool",
        "AtomicU64",
        "AtomicUsize",
        "Notify",
        "oneshot",
    ];
    let engine = top().join("engine/src");
    let (mut looked, mut wrong) = (0, Vec::new());
    for (path, text) in sources(&engine) {
        let inside = path.strip_prefix(&engine).unwrap().display().to_string();
        let replaced = ["sync.rs", "io/threads", "io/uring", "io/mapped"];
        if replaced.iter().any(|place| inside.starts_with(place)) {
            continue;
        }
        for line in code(&text).lines().filter(|line| line.starts_with("use ")) {
            // The guard of an async lock, which is acquired or found held in one step.
            let line = line.replace("OwnedMutexGuard", "");
            let named = shared.iter().any(|name| line.contains(name));
            looked += usize::from(named);
            if named && !line.starts_with("use crate::sync::") {
                wrong.push(format!("{inside}: {line}"));
            }
        }
        wrong.extend(
            code(&text)
                .lines()
                .filter(|line| line.contains("parking_lot::"))
                .map(|line| format!("{inside}: {line}")),
        );
    }
    assert!(looked > 15, "only {looked} imports were found");
    assert!(wrong.is_empty(), "not from `sync`:\n{}", wrong.join("\n"));
}

/// Guards: ARCHITECTURE describes a push and a pull from socket to disk in at most 15 hops, and each is a function of
/// the named file.
#[test]
fn the_paths_of_a_push_and_a_pull_exist() {
    let document = fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    for title in [
        "### A push, from socket to disk",
        "### A pull, from socket to disk",
    ] {
        let (_, section) = document.split_once(title).expect(title);
        let section = section.split("\n##").next().unwrap();
        let hops = section.lines().filter_map(|line| {
            let (number, hop) = line.split_once(". `")?;
            number.trim().parse::<usize>().ok()?;
            let mut words = hop.split('`').step_by(2);
            Some((words.next()?, words.next()?))
        });
        let hops: Vec<(&str, &str)> = hops.collect();
        assert!(
            (5..=15).contains(&hops.len()),
            "{title}: {} hops",
            hops.len()
        );
        for (file, function) in hops {
            let text = fs::read_to_string(top().join(file)).expect(file);
            let there = text.contains(&format!("fn {function}("));
            assert!(
                there || text.contains(&format!("fn {function}<")),
                "{file}: no {function}"
            );
        }
    }
}

/// Guards: checks of invariants stay on in release builds.
#[test]
fn no_invariant_is_checked_in_debug_builds_only() {
    for name in ["engine/src", "server/src"] {
        for (path, text) in sources(&top().join(name)) {
            let found = text.contains("debug_assert");
            assert!(!found, "{}: use assert", path.display());
        }
    }
}

/// Guards: every advisory in SECURITY.md names a test, and each of these tests exists.
#[test]
fn tests_of_advisories_exist() {
    let document = fs::read_to_string(top().join("SECURITY.md")).unwrap();
    let (_, section) = document
        .split_once("## What other registries taught")
        .unwrap();
    let advisories: Vec<&str> = section.split("\n- **").skip(1).collect();
    assert!(advisories.len() > 20, "{} advisories", advisories.len());
    for advisory in advisories {
        let (id, _) = advisory.split_once('.').unwrap();
        let named = advisory.split('`').filter_map(|word| word.split_once("::"));
        let named: Vec<(&str, &str)> = named.collect();
        assert!(!named.is_empty(), "{id} names no test");
        for (file, name) in named {
            let text = fs::read_to_string(top().join(file)).expect(file);
            let before = text.split_once(&format!("fn {name}()"));
            let (before, _) = before.unwrap_or_else(|| panic!("{id}: {file} has no {name}"));
            let attribute = before.trim_end().lines().rev().take(2);
            let is_test = attribute.into_iter().any(|line| {
                let line = line.trim();
                line == "#[test]" || line.starts_with("#[tokio::test")
            });
            assert!(is_test, "{id}: {name} of {file} is not a test");
        }
    }
}
