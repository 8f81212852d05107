//! The task that writes transactions to the journal. It puts everything that was queued during the last sync into the
//! next frame.
//!
//! Owns: the loop, and what each outcome of a frame means. Refuses: checking preconditions, applying, retrying.

use std::sync::Arc;

use super::Sequencer;
use crate::error::Result;
use crate::journal::writer::{AppendError, JournalWriter};
use crate::poison::Poison;
use crate::sync::oneshot;

/// The two steps in which the journal task ends: the queue is empty, then the stop is declared clean or not.
#[derive(Debug)]
pub(crate) struct ShutdownSignals {
    /// Sent when the queue is empty and no more transactions can come.
    pub(crate) drained: oneshot::Sender<()>,
    /// Received when the stop is clean. If the sender is dropped instead, the stop is not clean.
    pub(crate) seal: oneshot::Receiver<()>,
}

/// Runs until the sequencer closes, then closes the journal as `shutdown` says.
///
/// A frame that could not be started (no space for a new file) fails everything queued and leaves the journal intact. A
/// frame that failed half-way stops all writes.
///
/// # Errors
/// The failure that stopped writes, or the one that closing the journal met.
pub(crate) async fn run_journal(
    sequencer: Arc<Sequencer>,
    mut journal: JournalWriter,
    poison: Arc<Poison>,
    shutdown: ShutdownSignals,
) -> Result<()> {
    while let Some(group) = sequencer.next_group().await {
        match journal
            .append(group.first_lsn, group.transactions, group.payload)
            .await
        {
            Ok(position) => sequencer.publish(position),
            Err(AppendError::NotStarted(error)) => {
                tracing::warn!(%error, "transactions failed; nothing of them was written");
                sequencer.fail_queued(&error, false);
            }
            Err(AppendError::Failed(error)) => {
                let error = poison.set(error);
                sequencer.fail_queued(&error, true);
            }
        }
    }
    // The receiver is gone if the store was dropped without a close.
    shutdown.drained.send(()).unwrap_or_default();
    let sealed = shutdown.seal.await.is_ok();
    if sealed && poison.cause().is_none() {
        return journal.close().await;
    }
    let abandoned = journal.abandon().await;
    poison.check().and(abandoned)
}
