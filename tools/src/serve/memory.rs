//! Memory that requests have used goes back to the system.

use std::time::Duration;

use tonnage_engine::io::release_free_memory;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Starts the thread that looks, for as long as the process lives. Without one the registry serves all the same.
pub(super) fn start() {
    let thread = std::thread::Builder::new().name("tonnage-memory".to_owned());
    let looking = thread.spawn(|| {
        loop {
            std::thread::sleep(INTERVAL);
            release_free_memory();
        }
    });
    if let Err(error) = looking {
        tracing::warn!(%error, "no thread gives free memory back; what many requests at once have used stays with this process");
    }
}
