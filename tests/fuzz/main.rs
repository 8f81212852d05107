//! The fuzzer: one program for all targets, because most of its size is shared. `tests/fuzz/run` builds and starts it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tonnage_fuzz::{Memory, memory, run_within_limit};
use tonnage_tests::fuzz::{TARGETS, Target};

#[global_allocator]
static MEMORY: Memory = memory();

/// The target that `TONNAGE_TEST_FUZZ` names.
static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() -> Target {
    let name = std::env::var("TONNAGE_TEST_FUZZ").unwrap_or_default();
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("TONNAGE_TEST_FUZZ={name:?} is no target"))
}

fuzz_target!(|input: &[u8]| run_within_limit(CHOSEN.get_or_init(choose), &MEMORY, input));
