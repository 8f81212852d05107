//! Syncs of the payload, and the checkpoints of the log that follow them.
//!
//! Invariants: a checkpoint names only bytes that were synced before it was written.

use super::Spill;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::limits::CHUNK_BYTES;
use crate::upload::log::LogFile;
use crate::upload::payload_hash::Progress;

#[derive(Debug)]
pub(super) struct Syncing {
    end: u64,
    work: InFlight<Synced>,
}

#[derive(Debug)]
pub(super) struct Synced {
    outcome: Result<()>,
    /// The log, if it was appended to, and the number of bytes that it names now.
    log: Option<(LogFile, Option<u64>)>,
}

impl Syncing {
    /// Waits for the sync to end, then removes its log, whose file it may just be creating.
    pub(super) async fn remove_log(mut self) {
        let done = self.work.done().await.take();
        if let Some((mut log, _)) = done.and_then(|done| done.log) {
            log.remove();
        }
    }
}

impl Spill {
    /// Returns whether all of `length` bytes are synced and, if there is a log, it names `named` bytes.
    pub(in crate::upload) fn is_recorded(&self, length: u64, named: u64) -> bool {
        let is_lost = self.log.as_ref().is_some_and(|log| !log.usable());
        let is_empty = length == 0 && self.recorded.is_none();
        let named = self.recorded == Some(named) || is_lost || is_empty;
        let settled = self.writes.is_empty() && self.syncing.is_none();
        settled && self.finishing.is_none() && self.synced >= length && named
    }

    /// Returns whether the log names more than `length` bytes.
    pub(in crate::upload) fn is_log_ahead_of(&self, length: u64) -> bool {
        self.recorded.is_some_and(|named| named > length)
    }

    /// Starts a sync, with a checkpoint of `progress` where one is due. All bytes of `progress` must have been passed
    /// to [`Spill::start_write`], and no others.
    pub(in crate::upload) async fn pace(
        &mut self,
        progress: Progress<'_>,
        sync_every: u64,
        record_every: u64,
    ) -> Result<()> {
        if let Some(syncing) = &mut self.syncing {
            // Its checkpoint follows the sync, and it may be long until a step waits for it.
            syncing.work.nudge();
        }
        let (length, named) = (progress.length(), progress.named());
        if self.is_log_ahead_of(named) {
            // A rollback was given up before its checkpoint: until then no byte that the log names may change.
            self.record(progress).await?;
        }
        let unnamed = length.saturating_sub(self.recorded.unwrap_or(0));
        let record = self.recorded != Some(named) && unnamed >= record_every;
        if !record && length.saturating_sub(self.sync_started) < sync_every {
            return Ok(());
        }
        if self.syncing.is_some() && length.saturating_sub(self.synced) < 2 * sync_every {
            return Ok(());
        }
        self.settle_sync().await?;
        self.settle_writes(0).await?;
        self.start_sync(progress, record);
        Ok(())
    }

    pub(super) fn start_sync(&mut self, progress: Progress<'_>, record: bool) {
        let (length, named) = (progress.length(), progress.named());
        let (sync, client) = (self.writer().sync(), self.writer().client());
        let mut log = if record {
            self.log.take_if(|log| log.usable())
        } else {
            None
        };
        if let Some(log) = &mut log {
            log.set_client(client);
        }
        let first = self.recorded.unwrap_or(0).min(named) / CHUNK_BYTES as u64;
        let unix_ms = self.shared.env.clock.wall_unix_ms();
        let checkpoint = progress.checkpoint(first, unix_ms);
        let header = self.header.clone();
        // Bytes that the log names are written again after this, so the log must not stay as it is.
        let is_log_ahead = self.is_log_ahead_of(named);
        let work = InFlight::start(async move {
            let outcome = sync.await;
            let Some(mut log) = log else {
                return Synced { outcome, log: None };
            };
            if outcome.is_err() {
                return Synced {
                    outcome,
                    log: Some((log, None)),
                };
            }
            let appended = log.append(&header, &checkpoint).await;
            let outcome = match &appended {
                Err(error) => {
                    tracing::warn!(%error, "an upload will not survive a restart");
                    // A later rollback must not find that a power cut brings the log back.
                    if is_log_ahead || !log.usable() {
                        log.remove_durably().await
                    } else {
                        outcome
                    }
                }
                Ok(()) => outcome,
            };
            Synced {
                outcome,
                log: Some((log, appended.is_ok().then_some(named))),
            }
        });
        self.sync_started = length;
        self.syncing = Some(Syncing { end: length, work });
    }

    /// Waits for the sync in flight, if there is one.
    pub(in crate::upload) async fn settle_sync(&mut self) -> Result<()> {
        let Some(syncing) = &mut self.syncing else {
            return Ok(());
        };
        let (done, end) = (syncing.work.done().await.take(), syncing.end);
        self.syncing = None;
        let Some(done) = done else {
            return Err(Error::Closed);
        };
        if let Some((log, named)) = done.log {
            if named.is_some() || !log.usable() {
                // A log that became unusable is removed, with all that it named.
                self.recorded = named;
            }
            self.log = Some(log);
        }
        if done.outcome.is_err() {
            // Not attempted, or the upload is over: the next sync covers these bytes, too.
            self.sync_started = self.synced;
        }
        done.outcome?;
        self.synced = self.synced.max(end);
        Ok(())
    }

    /// Syncs all bytes and writes a checkpoint now.
    pub(in crate::upload) async fn record(&mut self, progress: Progress<'_>) -> Result<()> {
        self.settle().await?;
        self.behind = false;
        if self.is_recorded(progress.length(), progress.named()) {
            return Ok(());
        }
        self.reopen().await?;
        self.start_sync(progress, true);
        self.settle_sync().await
    }
}
