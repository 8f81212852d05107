//! Returns free memory to the system.

use std::time::Duration;

use tonnage_engine::io::release_free_memory;

/// Interval between two checks.
const INTERVAL: Duration = Duration::from_secs(10);
/// Free memory that may stay resident, in bytes.
const SPARE_BYTES: usize = 32 << 20;

/// Returns what opening the store has freed, such as buffers of the journal, and starts the thread that checks while
/// the process runs. If it cannot be started, the registry serves without it.
///
/// Returning memory takes milliseconds on the caller's thread, which serves nobody yet.
pub(super) fn start() {
    release_free_memory(0);
    let thread = std::thread::Builder::new().name("tonnage-memory".to_owned());
    let looking = thread.spawn(|| {
        loop {
            std::thread::sleep(INTERVAL);
            release_free_memory(SPARE_BYTES);
        }
    });
    if let Err(error) = looking {
        tracing::warn!(%error, "the thread that returns free memory to the system could not be started; the process keeps its peak of memory");
    }
}
