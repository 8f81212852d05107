//! An input of a target, held to the target's bound of memory.
//!
//! Owns: [`held_to_its_bounds`]. Its caller has to have [`Memory`] as the global allocator.

use std::alloc::System;
use std::sync::Once;

use cap::Cap;
use tonnage_tests::fuzz::Target;

/// An allocator that counts and refuses.
pub type Memory = Cap<System>;

/// Without a bound, until a target sets one.
pub const fn memory() -> Memory {
    Cap::new(System, usize::MAX)
}

/// Lets a panic say what it has to say, whatever memory that takes.
fn speak_freely(memory: &'static Memory) {
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

/// Runs one input; what needs more memory than its target may take ends the process, as a real lack of memory does.
pub fn held_to_its_bounds(target: &Target, memory: &'static Memory, input: &[u8]) {
    speak_freely(memory);
    let before = memory.allocated();
    let bound = before.saturating_add(target.memory_for(input.len()));
    memory
        .set_limit(bound)
        .unwrap_or_else(|_| panic!("{bound} bytes are less than what is held now"));
    (target.run)(input);
    unbound(memory);
}
