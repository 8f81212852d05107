//! Work that is repeated every second on a thread of its own.
//!
//! Owns: [`every_second`]. Such work waits for a disk, and a limit on threads that is reached later must not end it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Starts a thread that calls `look` every second, as long as that returns true.
pub(crate) fn every_second(
    name: &str,
    mut look: impl FnMut() -> bool + Send + 'static,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let repeating = move || {
        // A panic is reported by the panic hook, and the next look is another attempt.
        while catch_unwind(AssertUnwindSafe(&mut look)).unwrap_or(true) {
            std::thread::sleep(LOOK);
        }
    };
    thread.spawn(repeating).map(drop)
}
