//! The one task that makes transactions durable: everything queued while the last sync ran goes into the next frame.
//!
//! Owns: the loop and what each outcome of a frame means. Refuses: judging, applying, retrying.

use std::sync::Arc;

use super::Sequencer;
use crate::error::Result;
use crate::journal::writer::{AppendError, JournalWriter};
use crate::poison::Poison;

/// Runs until the sequencer closes, then closes the journal. Returns what closing found.
///
/// A frame that could not be started (no space for a new file) fails what is queued and leaves the journal intact; one
/// that failed half-way stops all writes.
pub async fn run_journal(
    sequencer: Arc<Sequencer>,
    mut journal: JournalWriter,
    poison: Arc<Poison>,
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
    poison.check()?;
    journal.close().await
}
