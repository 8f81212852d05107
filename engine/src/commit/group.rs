//! The one task that makes transactions durable: everything queued while the last sync ran goes into the next frame.
//!
//! Owns: the loop and what each outcome of a frame means. Refuses: judging, applying, retrying.

use std::sync::Arc;

use super::Sequencer;
use crate::error::Result;
use crate::journal::writer::{AppendError, JournalWriter};
use crate::poison::Poison;
use crate::sync::oneshot;

/// The journal task's end, in two steps: the queue is empty, and whether the stop is a clean one.
#[derive(Debug)]
pub(crate) struct Ending {
    /// Told when the queue is empty and no more transactions come.
    pub(crate) drained: oneshot::Sender<()>,
    /// Says that nothing was left behind. Dropped without a word, the stop is not a clean one.
    pub(crate) seal: oneshot::Receiver<()>,
}

/// Runs until the sequencer closes, then closes the journal as `ending` says. Returns what closing found.
///
/// A frame that could not be started (no space for a new file) fails what is queued and leaves the journal intact; one
/// that failed half-way stops all writes.
pub(crate) async fn run_journal(
    sequencer: Arc<Sequencer>,
    mut journal: JournalWriter,
    poison: Arc<Poison>,
    ending: Ending,
) -> Result<()> {
    while let Some(group) = sequencer.next_group().await {
        match journal
            .append(group.first_lsn, group.transactions, group.payload)
            .await
        {
            Ok(position) => sequencer.publish(position),
            Err(AppendError::NotStarted(error)) => {
                tracing::warn!(%error, "transactions were refused; nothing of them was written");
                sequencer.fail_queued(&error, false);
            }
            Err(AppendError::Failed(error)) => {
                let error = poison.set(error);
                sequencer.fail_queued(&error, true);
            }
        }
    }
    // Nobody listens where the store was dropped without a close.
    ending.drained.send(()).unwrap_or_default();
    let sealed = ending.seal.await.is_ok();
    if sealed && poison.cause().is_none() {
        return journal.close().await;
    }
    let abandoned = journal.abandon().await;
    poison.check().and(abandoned)
}
