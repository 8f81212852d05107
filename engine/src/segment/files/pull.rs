//! Opening a segment for a pull, which waits where no more files may be open.
//!
//! Owns: how long it waits, and who lets go meanwhile. Refuses: whose turn it is (`line`).

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

/// How long a pull waits for another file to be closed, beside twice the time after which a client counts as stalled.
const WAIT: Duration = Duration::from_secs(1);
/// Time between two tries of the one whose turn it is.
const PAUSE: Duration = Duration::from_millis(10);

impl SegmentFiles {
    /// As [`SegmentFiles::open`], for a pull of `client`: waits while as many files are open as may be. Clients have their turn one after
    /// the other; meanwhile the one with an open file that took nothing of its answer for the longest time is told to let go, one at a
    /// time.
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
        // Where others wait, their turn comes first.
        let mut admitted = if self.pulls.is_empty() {
            self.admit(Purpose::Read)
        } else {
            Err(Full::Pulls)
        };
        if admitted.is_err() {
            let mut turn = self.pulls.join(client);
            let _ = select(pin!(turn.come()), clock.sleep(wait)).await;
            loop {
                // Others may want the same one.
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
        self.open_admitted(id, OpenMode::Read, admitted).await
    }
}
