//! Space for uploads that go on, taken from those that do not.
//!
//! Owns: when uploads without a request give way to others on a full disk. Refuses: which one that is (`places`).
//!
//! Invariant: an upload is ended for space only if that can help: for a length that was announced and does not fit
//! even so, none is.

use super::UploadId;
use super::body::Shared;
use crate::io::Class;

impl Shared {
    /// A write of the upload `own` found the disk full. Ends the upload that was idle for the longest time, and waits
    /// until its space is free; false where there is none, or it is that one.
    pub(super) async fn make_space(&self, own: UploadId) -> bool {
        let Some(sessions) = self.sessions.upgrade() else {
            return false;
        };
        let Some(session) = sessions.evict_partial(self.env.clock.monotonic()) else {
            return false;
        };
        tracing::info!(upload = %session.id(), repository = session.repository(), "an idle upload was ended, for the disk is full");
        session.abandon();
        let own = session.id() == own;
        drop(session);
        self.segments.files().unlinked().await;
        !own
    }

    /// Ends uploads that are idle while less than the reserve would be left behind `wanted` more bytes.
    pub(super) async fn keep_free(&self, own: UploadId, wanted: u64) {
        let wanted = wanted.saturating_add(self.options.reserve_bytes);
        loop {
            let (io, path) = (&self.env.io, self.segments.files().dir());
            // Where it is not known, the writes will tell.
            let Ok(space) = io.space(Class::Directory.call(), path).await else {
                return;
            };
            let short = wanted.saturating_sub(space.available_bytes);
            let now = self.env.clock.monotonic();
            let idle = self
                .sessions
                .upgrade()
                .map(|sessions| sessions.idle_bytes(now));
            if short == 0 || idle.unwrap_or_default() < short || !self.make_space(own).await {
                return;
            }
        }
    }
}
