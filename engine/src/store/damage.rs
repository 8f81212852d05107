//! Recording of damage that reads find, and of its end, so that the next open has the marks.
//!
//! Owns: the task, and when it tries again. Refuses: finding damage (`segment::reader`) and healing it. A push of the
//! blob removes the mark.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::Inner;
use super::background::or_closing;
use crate::catalog::View;
use crate::error::{Error, Result};
use crate::segment::{DamageMark, Damaged};
use crate::table::resident;

/// Marks in one transaction.
const BATCH: usize = 256;
/// Names that need a damaged blob, in a line of the log.
const NAMED_MAX: usize = 8;
/// Pause after a failed attempt (mostly a full disk) before the next one.
const RETRY: Duration = Duration::from_secs(10);

/// Records what is found until the store closes.
pub(super) async fn task(
    store: Weak<Inner>,
    damaged: Arc<Damaged>,
    mut closing: watch::Receiver<bool>,
) {
    while or_closing(damaged.found(), &mut closing).await {
        let Some(inner) = store.upgrade() else { return };
        match record(&inner).await {
            Ok(()) => {}
            // The marks stay in memory until the stop, and reads find the damage again after it.
            Err(Error::Closed | Error::Poisoned { .. }) => return,
            Err(error) => {
                tracing::warn!(%error, "damage that was found could not be recorded; retrying");
                let pause = inner.env.clock.sleep(RETRY);
                drop(inner);
                if !or_closing(pause, &mut closing).await {
                    return;
                }
            }
        }
    }
}

/// Records what was found so far, durable on return.
pub(super) async fn record(inner: &Inner) -> Result<()> {
    let damaged = inner.segments.damaged();
    loop {
        let found = damaged.take_unrecorded(BATCH);
        if found.is_empty() {
            return Ok(());
        }
        let recorded = async {
            match resident(|| inner.sequencer.record_damage(&found)).await? {
                Some(waiting) => waiting.await.map_err(|_gone| Error::Closed)?.map(drop),
                None => Ok(()),
            }
        };
        if let Err(error) = recorded.await {
            damaged.put_back(found);
            return Err(error);
        }
        for mark in found {
            let DamageMark {
                digest,
                extent,
                proof,
            } = mark;
            if let Some(proof) = proof {
                let needed = View::new(inner.sequencer.durable());
                let needed = needed.read(|view| view.needed_by(&digest, NAMED_MAX)).await;
                let needed_by =
                    needed.map_or_else(|error| error.to_string(), |names| names.to_string());
                tracing::error!(%digest, %extent, found_by = %proof, %needed_by, "a stored blob is damaged; push the same content again or run `tonnage repair` to heal it");
            } else {
                tracing::info!(%digest, %extent, "a blob that was recorded as damaged was read and is intact");
            }
        }
        inner.checkpoints.start_if_due(inner);
    }
}
