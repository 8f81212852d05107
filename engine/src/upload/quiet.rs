//! Suspending uploads that receive nothing: their memory and descriptors are freed.
//!
//! Owns: when that happens. Refuses: how (`body`), and ending uploads (`eviction`).
//!
//! Invariant: never waits for a step of a request, because that request may wait for what this frees.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::eviction::QUIET;
use super::session::Session;
use super::sessions::Uploads;
use crate::sync::Notify;

/// Replaces [`QUIET`] while memory or descriptors are short.
const QUIET_WHEN_SHORT: Duration = Duration::from_millis(250);
/// Time between two scans while an upload holds memory or a descriptor.
pub(crate) const SCAN_INTERVAL: Duration = Duration::from_millis(250);
/// Time after which a failed suspension is repeated.
const RETRY: Duration = Duration::from_secs(10);
/// Uploads that are suspended at once.
const AT_ONCE: usize = 4;

impl Uploads {
    /// Returns the notification that an upload holds memory or a descriptor that it did not hold before.
    pub(crate) fn held(&self) -> Arc<Notify> {
        Arc::clone(&self.shared().held)
    }

    /// Suspends uploads that received nothing for a while, even if a request waits for its client. Returns whether any
    /// upload still holds memory or a descriptor.
    pub(crate) async fn suspend_quiet(&self) -> bool {
        let shared = self.shared();
        let writers_wait = shared.segments.files().writers_wait();
        shared.segments.files().forget_wanted();
        let short = shared.staging.is_short() || writers_wait;
        let quiet = if short { QUIET_WHEN_SHORT } else { QUIET };
        let now = self.now();
        let due = self.table().select(|session| session.is_quiet(now, quiet));
        // Those that have a descriptor first, because the others may need one.
        for open in [true, false] {
            let suspend = |session: Arc<Session>| self.suspend(session, open, now);
            let due = stream::iter(due.iter().map(Arc::clone));
            due.for_each_concurrent(AT_ONCE, suspend).await;
            if open && writers_wait {
                self.release_descriptors().await;
            }
        }
        !self.table().select(Session::holds).is_empty()
    }

    /// Suspends an upload, if it has a descriptor and `open` is true, or has none and `open` is false.
    async fn suspend(&self, session: Arc<Session>, open: bool, now: Duration) {
        let Some(mut body) = session.try_hold(self) else {
            return;
        };
        if body.is_open() != open {
            return;
        }
        session.keep_answered(&mut body);
        if let Err(error) = body.suspend().await {
            tracing::debug!(upload = %session.id(), %error, "a quiet upload could not be suspended");
            session.retry_at(now + RETRY);
        }
    }

    /// Takes descriptors from uploads that receive bytes slowly, while others wait for one.
    async fn release_descriptors(&self) {
        let release = |session: Arc<Session>| async move {
            if !self.shared().segments.files().is_full_of_writers() {
                return;
            }
            let Some(mut body) = session.try_hold(self) else {
                return;
            };
            if body.is_open()
                && let Err(error) = body.release_descriptor_idle().await
            {
                tracing::debug!(upload = %session.id(), %error, "the descriptor of a slow upload could not be released");
            }
        };
        let holding = stream::iter(self.table().select(Session::holds));
        holding.for_each_concurrent(AT_ONCE, release).await;
    }
}
