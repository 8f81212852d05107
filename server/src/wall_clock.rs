//! The system's time of day, for ends of tokens, keys and certificates, and for records.
//!
//! Owns: [`now_unix_s`]. Refuses: limits on clients, which `clock` measures.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the system's time in seconds of Unix; 0 for a time before 1970.
pub(crate) fn now_unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
