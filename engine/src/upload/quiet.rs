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
        let short = shared.staging.is_short() || shared.segments.files().writers_wait();
        let quiet = if short { QUIET_WHEN_SHORT } else { QUIET };
        let now = self.now();
        let due = self.table().select(|session| session.is_quiet(now, quiet));
        let put_away = |session: Arc<Session>| async move {
            let Some(mut body) = session.try_hold(self) else {
                return;
            };
            if let Err(error) = body.put_away().await {
                tracing::debug!(upload = %session.id(), %error, "a quiet upload could not be put away");
                session.retry_at(now + RETRY);
            }
        };
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, put_away)
            .await;
        !self.table().select(Session::holds).is_empty()
    }
}
