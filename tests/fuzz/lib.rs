//! Runs an input of a fuzz target within the target's memory limit.
//!
//! Owns: [`run_within_limit`]. Its caller must have [`Memory`] as the global allocator.

use std::alloc::System;
use std::sync::Once;

use cap::Cap;
use tonnage_tests::fuzz::Target;

/// An allocator that counts, and fails beyond a limit.
pub type Memory = Cap<System>;

/// Returns an allocator without a limit, until a target sets one.
pub const fn memory() -> Memory {
    Cap::new(System, usize::MAX)
}

/// Lifts the limit when a panic begins, so that its message can be printed.
fn lift_limit_on_panic(memory: &'static Memory) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let speak = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            unbound(memory);
            speak(info);
        }));
    });
}

fn unbound(memory: &Memory) {
    memory
        .set_limit(usize::MAX)
        .unwrap_or_else(|_| unreachable!("there is nothing above it"));
}

/// Runs one input. An allocation beyond the target's limit ends the process, as a real lack of memory does.
pub fn run_within_limit(target: &Target, memory: &'static Memory, input: &[u8]) {
    lift_limit_on_panic(memory);
    let before = memory.allocated();
    let bound = before.saturating_add(target.memory_for(input.len()));
    memory
        .set_limit(bound)
        .unwrap_or_else(|_| panic!("{bound} bytes are less than what is allocated now"));
    (target.run)(input);
    unbound(memory);
}
