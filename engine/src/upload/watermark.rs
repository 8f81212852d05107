//! The low watermark of free space: below it, bytes of uploads are refused before they are received.
//!
//! Owns: the last measurement of free space, and the admission of requests that bring bytes. Refuses: which upload is
//! ended (`eviction`), and ending it (`space`).
//!
//! Invariants: a request waits for a measurement only if the last one was below the watermark. Idle uploads are ended
//! before a request is refused, the longest idle first. Nothing but uploads is refused: deletes, tags and manifests
//! never ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::eviction::QUIET;
use super::sessions::Uploads;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::io::{Class, Space};
use crate::sync::{AtomicBool, Mutex};

/// Age from which a measurement is repeated for the next request.
const STALE_AFTER: Duration = Duration::from_millis(250);
/// The default watermark: this part of the file system, at most [`DEFAULT_MAX_BYTES`]. So a small disk can be used, and
/// a large one has room for checkpoints, merges and a shared segment.
const DEFAULT_PART: u64 = 20;
const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// The space of the file system that holds the store, and what uploads must leave of it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system.
    pub total_bytes: u64,
    /// Bytes available on it.
    pub available_bytes: u64,
    /// The low watermark.
    pub free_min_bytes: u64,
}

impl DiskSpace {
    /// Applies the option [`crate::Options::free_space_min_bytes`] to a measurement.
    pub(crate) fn new(space: Space, option: Option<u64>) -> Self {
        let Space {
            total_bytes,
            available_bytes,
        } = space;
        let default = (total_bytes / DEFAULT_PART).min(DEFAULT_MAX_BYTES);
        // Some file systems report no sizes at all.
        let known = total_bytes > 0;
        Self {
            total_bytes,
            available_bytes,
            free_min_bytes: if known { option.unwrap_or(default) } else { 0 },
        }
    }

    /// Returns whether less is free than uploads must leave, so that their bytes are refused.
    pub fn is_low(&self) -> bool {
        self.available_bytes < self.free_min_bytes
    }
}

/// The last measurement of free space.
#[derive(Debug, Default)]
pub(super) struct Measurement {
    last: Mutex<Option<(DiskSpace, Duration)>>,
    /// Whether a task is measuring.
    running: AtomicBool,
}

impl Measurement {
    /// Returns the last result.
    pub(super) fn last(&self) -> Option<DiskSpace> {
        self.last.lock().map(|(space, _)| space)
    }

    fn is_newer_than(&self, time: Duration) -> bool {
        self.last.lock().is_some_and(|(_, at)| at > time)
    }

    /// Returns the refusal, if the last result is below the watermark.
    fn refusal(&self) -> Option<Error> {
        let space = self.last().filter(DiskSpace::is_low)?;
        Some(Error::NearlyFull {
            free: space.available_bytes,
            min: space.free_min_bytes,
        })
    }
}

impl Shared {
    /// Measures free space; `None` if the system does not say.
    pub(super) async fn measure(&self) -> Option<DiskSpace> {
        let at = self.env.clock.monotonic();
        let dir = self.segments.files().dir();
        let space = self.env.io.space(Class::Directory.call(), dir).await;
        let space = DiskSpace::new(space.ok()?, self.options.free_space_min_bytes);
        *self.measurement.last.lock() = Some((space, at));
        Some(space)
    }

    /// Measures beside the caller, unless the last measurement is recent.
    pub(super) fn measure_if_stale(self: &Arc<Self>) {
        let stale = self.env.clock.monotonic().saturating_sub(STALE_AFTER);
        let measurement = &self.measurement;
        if measurement.is_newer_than(stale) || measurement.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        let task = async move {
            shared.measure().await;
            shared.measurement.running.store(false, Ordering::Release);
        };
        self.env.spawn.spawn("free-space", Box::pin(task));
    }

    /// Admits a request that brings bytes, or fails with [`Error::NearlyFull`]. Below the watermark it first ends
    /// idle uploads, and waits up to [`QUIET`] for those that are younger.
    pub(super) async fn admit(self: &Arc<Self>) -> Result<()> {
        if self.options.free_space_min_bytes == Some(0) {
            return Ok(());
        }
        self.measure_if_stale();
        if self.measurement.refusal().is_none() {
            return Ok(());
        }
        self.make_room().await
    }

    async fn make_room(&self) -> Result<()> {
        let clock = &self.env.clock;
        let began = clock.monotonic();
        loop {
            let one_at_a_time = self.evictions.lock().await;
            let stale = clock.monotonic().saturating_sub(STALE_AFTER);
            if !self.measurement.is_newer_than(stale) {
                self.measure().await;
            }
            let sessions = self.sessions.upgrade().ok_or(Error::Closed)?;
            let refusal = loop {
                let Some(refusal) = self.measurement.refusal() else {
                    return Ok(());
                };
                match self.end_one(&sessions, clock.monotonic()).await {
                    Some(true) => {}
                    Some(false) => return Err(refusal),
                    None => break refusal,
                }
            };
            let now = clock.monotonic();
            let pause = sessions.quiet_after(now).filter(|_| now < began + QUIET);
            let Some(pause) = pause else {
                return Err(refusal);
            };
            drop((one_at_a_time, sessions));
            clock.sleep(pause).await;
        }
    }
}

impl Uploads {
    /// Admits an upload, or fails with [`Error::NearlyFull`].
    pub(crate) async fn admit(&self) -> Result<()> {
        self.shared().admit().await
    }

    /// Measures free space for the first request, unless there is no watermark.
    pub(crate) async fn measure_space(&self) {
        if self.shared().options.free_space_min_bytes != Some(0) {
            self.shared().measure().await;
        }
    }

    /// Returns the last measurement of free space, and measures again for the next call.
    pub(crate) fn disk_space(&self) -> Option<DiskSpace> {
        self.shared().measure_if_stale();
        self.shared().measurement.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the default watermark is a part of a small disk and 1 GiB of a large one; a file system that reports no
    /// size is never low.
    #[test]
    fn the_default_watermark_depends_on_the_disk() {
        const GIB: u64 = 1 << 30;
        let low = |total_bytes, available_bytes, option| {
            let space = Space {
                total_bytes,
                available_bytes,
            };
            let space = DiskSpace::new(space, option);
            (space.free_min_bytes, space.is_low())
        };
        assert_eq!(low(200 << 20, 9 << 20, None), (10 << 20, true));
        assert_eq!(low(200 << 20, 10 << 20, None), (10 << 20, false));
        assert_eq!(low(100 << 40, GIB, None), (GIB, false));
        assert_eq!(low(100 * GIB, 40 * GIB, Some(50 * GIB)), (50 * GIB, true));
        assert_eq!(low(GIB, 0, Some(0)), (0, false));
        assert_eq!(low(0, 0, None), (0, false));
        assert_eq!(low(0, 0, Some(GIB)), (0, false));
    }
}
