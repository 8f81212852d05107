//! A replay of every stored input: those that fuzzers found useful, and former findings.
//!
//! `TONNAGE_TEST_REPLAY=FILE` replays only that file, with the target named like its folder.

use std::fs;
use std::path::{Path, PathBuf};

use tonnage_fuzz::{Memory, memory, run_within_limit};
use tonnage_tests::fuzz::TARGETS;
use tonnage_tests::say;

/// This file has one test, so that no other test's memory is counted.
#[global_allocator]
static MEMORY: Memory = memory();

/// The folders of inputs, each with a folder for each target.
const KEPT: [&str; 2] = ["corpus", "found"];

fn folder(kept: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kept)
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    paths.sort();
    paths
}

/// Guards: no stored input panics, exceeds its target's memory limit, or violates what its target checks.
#[test]
fn stored_inputs_pass() {
    if let Ok(path) = std::env::var("TONNAGE_TEST_REPLAY") {
        let path = PathBuf::from(path);
        let name = path.parent().and_then(Path::file_name).expect("a folder");
        let target = TARGETS.into_iter().find(|target| name == target.name);
        let target = target.expect("a folder that is named after a target");
        let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return run_within_limit(&target, &MEMORY, &input);
    }
    for kept in KEPT {
        for path in sorted(&folder(kept)) {
            let name = path.file_name().expect("a name");
            let known = TARGETS.iter().any(|target| name == target.name);
            assert!(known, "{} belongs to no target", path.display());
        }
    }
    for target in TARGETS {
        let inputs: Vec<PathBuf> = KEPT
            .iter()
            .flat_map(|kept| sorted(&folder(kept).join(target.name)))
            .collect();
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        // Without memory no more than this can be printed: find the file with TONNAGE_TEST_REPLAY.
        say::print_line(&format!(
            "replaying {}: {} inputs",
            target.name,
            inputs.len()
        ));
        for path in inputs {
            let input = fs::read(&path).expect("it can be read");
            let run = std::panic::AssertUnwindSafe(|| run_within_limit(&target, &MEMORY, &input));
            if std::panic::catch_unwind(run).is_err() {
                panic!("{} fails", path.display());
            }
        }
    }
}
