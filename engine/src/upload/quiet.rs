//! Memory and descriptors of uploads to which nothing comes.
//!
//! Owns: when they are given back. Refuses: how (`body`), and ending uploads (`places`).
//!
//! Invariant: never waits for a step of a request, so that requests which wait for what this gives back are no
//! obstacle to it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::places::QUIET;
use super::session::Session;
use super::sessions::Uploads;
use crate::sync::Notify;

/// The same as [`QUIET`] while memory or descriptors are short.
const QUIET_WHEN_SHORT: Duration = Duration::from_millis(250);
/// How often to look while an upload holds anything.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Time after which one is tried again that could not be put away.
const RETRY: Duration = Duration::from_secs(10);
/// Uploads that are put away at once.
const AT_ONCE: usize = 4;

impl Uploads {
    /// Told when an upload holds memory or a descriptor that it did not hold before.
    pub(crate) fn held(&self) -> Arc<Notify> {
        Arc::clone(&self.shared().held)
    }

    /// Writes to disk what uploads hold to which nothing came for a while, also under a request that waits for its
    /// client; whether any holds something after that.
    pub(crate) async fn put_away_quiet(&self) -> bool {
        let shared = self.shared();
        let writers_wait = shared.segments.files().writers_wait();
        shared.segments.files().forget_wanted();
        let short = shared.staging.is_short() || writers_wait;
        let quiet = if short { QUIET_WHEN_SHORT } else { QUIET };
        let now = self.now();
        let due = self.table().select(|session| session.is_quiet(now, quiet));
        // Those that have a descriptor first: the others may need one.
        for open in [true, false] {
            let put_away = |session: Arc<Session>| self.put_away(session, open, now);
            let due = stream::iter(due.iter().map(Arc::clone));
            due.for_each_concurrent(AT_ONCE, put_away).await;
            if open && writers_wait {
                self.release_descriptors().await;
            }
        }
        !self.table().select(Session::holds).is_empty()
    }

    /// Puts one away of those that have a descriptor, or of those that have none.
    async fn put_away(&self, session: Arc<Session>, open: bool, now: Duration) {
        let Some(mut body) = session.try_hold(self) else {
            return;
        };
        if body.is_open() != open {
            return;
        }
        session.keep_answered(&mut body);
        if let Err(error) = body.put_away().await {
            tracing::debug!(upload = %session.id(), %error, "a quiet upload could not be put away");
            session.retry_at(now + RETRY);
        }
    }

    /// Takes descriptors from uploads to which bytes come slowly, while others wait for one.
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
                tracing::debug!(upload = %session.id(), %error, "a slow upload could not give its descriptor to others");
            }
        };
        let holding = stream::iter(self.table().select(Session::holds));
        holding.for_each_concurrent(AT_ONCE, release).await;
    }
}
