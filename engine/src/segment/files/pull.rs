//! Opening a segment for a pull, which waits while too many files are open.
//!
//! Owns: how long it waits, and which clients lose their files meanwhile. Refuses: the order of waiting pulls
//! (`pull_queue`).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::{SegmentFile, SegmentFiles};
use crate::error::Result;
use crate::extent::SegmentId;
use crate::io::OpenMode;
use crate::memory::MemoryBudget;
use crate::segment::open_files::{Full, Purpose};
use crate::vocabulary::ClientId;

/// Time that a pull waits for another file to be closed, in addition to twice the time after which a client counts as
/// stalled.
const WAIT: Duration = Duration::from_secs(1);
/// Time between two attempts of the pull that has the turn.
const PAUSE: Duration = Duration::from_millis(10);

impl SegmentFiles {
    /// Opens a segment for a pull of `client`; waits while too many files are open.
    ///
    /// Clients are served in turn. Meanwhile, the client with an open file that took nothing of its answer for the
    /// longest time is revoked, one at a time.
    pub(crate) async fn open_for_client(
        self: &Arc<Self>,
        id: SegmentId,
        client: ClientId,
        memory: &MemoryBudget,
    ) -> Result<Arc<SegmentFile>> {
        if let Some(file) = self.find(id) {
            return Ok(file);
        }
        let clock = &self.env.clock;
        let wait = memory.stall() * 2 + WAIT;
        let until = clock.monotonic() + wait;
        // If others wait, their turn comes first.
        let mut admitted = if self.pulls.is_empty() {
            self.admit(Purpose::Read)
        } else {
            Err(Full::Pulls)
        };
        if admitted.is_err() {
            let mut turn = self.pulls.join(client);
            let _ = select(pin!(turn.granted()), clock.sleep(wait)).await;
            loop {
                // Another pull may have opened the same segment.
                if let Some(file) = self.find(id) {
                    return Ok(file);
                }
                admitted = self.admit(Purpose::Read);
                if admitted.is_ok() || clock.monotonic() >= until {
                    break;
                }
                memory.revoke_for_file();
                clock.sleep(PAUSE).await;
            }
        }
        self.open_admitted(id, OpenMode::ReadRandom, admitted).await
    }
}
