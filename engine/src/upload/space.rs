//! Space for uploads on a full disk.
//!
//! Owns: ending idle uploads for a write that found the disk full, and the check of announced lengths. Refuses: which
//! upload is ended (`eviction`), and the measurement of free space (`watermark`).
//!
//! Invariants: an upload is ended only for bytes that a request is writing or brings, never for an announced length,
//! nor to write what another idle upload holds in memory. Uploads are ended one at a time, and no further one for a
//! write once ending one freed nothing. An upload that was used a moment ago is not ended yet: its client may continue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::eviction::QUIET;
use super::session_table::SessionTable;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::sync::AtomicU64;

/// Which idle uploads are being ended for space, and how often that freed some.
#[derive(Debug, Default)]
pub(super) struct EvictionState {
    /// Held while an upload is being ended.
    ending: tokio::sync::Mutex<()>,
    /// Number of times that space was freed.
    freed: AtomicU64,
}

/// The attempts of one operation.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    shared: &'a Shared,
    freed_before: u64,
    /// Cleared once ending an upload freed nothing.
    may_end: bool,
}

impl Attempts<'_> {
    /// Returns whether an attempt that failed with `error` is to be repeated: the disk was full, and an idle upload was
    /// ended.
    pub(super) async fn again(&mut self, error: &Error) -> bool {
        if !error.is_no_space() || !self.may_end {
            return false;
        }
        let Some(freed) = self.shared.make_space(self.freed_before).await else {
            return false;
        };
        self.freed_before = self.shared.evictions.freed();
        self.may_end = freed;
        true
    }
}

/// Evaluates a step, and again each time that it found the disk full and an idle upload was ended to make space. It is
/// not a function, because a closure that lends what it borrows does not return a future that is `Send`.
macro_rules! with_space {
    ($shared:expr, $step:expr $(, unless $over:expr)?) => {{
        let mut attempts = $shared.attempts();
        loop {
            match $step {
                Err(error) if $(!$over &&)? attempts.again(&error).await => {}
                done => break done,
            }
        }
    }};
}

pub(super) use with_space;

impl EvictionState {
    /// Waits until no upload is being ended, and prevents that another one is.
    pub(super) async fn lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.ending.lock().await
    }

    fn freed(&self) -> u64 {
        self.freed.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Begins the attempts of an operation that may find the disk full.
    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts {
            shared: self,
            freed_before: self.evictions.freed(),
            may_end: true,
        }
    }

    /// Ends an idle upload and waits until its files are removed; returns whether that freed space. Returns `None` if
    /// none can be ended before [`QUIET`] is over. Ends none if another write made space since the counter was
    /// `freed_before`.
    async fn make_space(&self, freed_before: u64) -> Option<bool> {
        let clock = &self.env.clock;
        let until = clock.monotonic() + QUIET;
        loop {
            let one_at_a_time = self.evictions.lock().await;
            if self.evictions.freed() != freed_before {
                return Some(true);
            }
            let sessions = self.sessions.upgrade()?;
            let now = clock.monotonic();
            if let Some(freed) = self.end_one(&sessions, now).await {
                return Some(freed);
            }
            let pause = sessions.quiet_after(now).filter(|_| now < until)?;
            drop((one_at_a_time, sessions));
            clock.sleep(pause).await;
        }
    }

    /// Ends the longest idle upload and waits until its files are removed; returns whether that freed space, or `None`
    /// if none can be ended. The caller holds [`EvictionState::lock`].
    pub(super) async fn end_one(&self, sessions: &SessionTable, now: Duration) -> Option<bool> {
        let free_before = self.measure().await;
        let session = sessions.evict_for_space(now)?;
        tracing::info!(upload = %session.id(), repository = session.repository(), "an idle upload was ended because the disk is full or nearly full");
        session.settle_and_abandon().await;
        drop(session);
        self.segments.files().unlinked().await;
        // If it is not known, the next attempt shows it.
        let freed = match (free_before, self.measure().await) {
            (Some(before), Some(after)) => after.available_bytes > before.available_bytes,
            _ => true,
        };
        if freed {
            self.evictions.freed.fetch_add(1, Ordering::AcqRel);
        }
        Some(freed)
    }

    /// Fails if `length` announced bytes cannot fit, even if all idle uploads were ended for them. Success is no
    /// promise, because others write as well.
    pub(super) async fn check_announced(&self, length: u64) -> Result<()> {
        // If it is not known, the writes show it.
        let Some(space) = self.measure().await else {
            return Ok(());
        };
        let free = space.available_bytes.saturating_sub(space.free_min_bytes);
        if length <= free {
            return Ok(());
        }
        let now = self.env.clock.monotonic();
        let sessions = self.sessions.upgrade();
        let idle = sessions.map_or(0, |sessions| sessions.idle_bytes(now));
        if length <= free.saturating_add(idle) {
            return Ok(());
        }
        Err(Error::NoSpaceAnnounced {
            announced: length,
            free,
            idle,
        })
    }
}
