//! The check of runs that an open after a clean stop left for later.
//!
//! Owns: the order: first all filters, because without one every lookup of an absent key reads a page; then all pages.
//! Refuses: the checks themselves (`table`).
//!
//! Invariant: damage that is found is recorded, so that the next stop is not clean. A check that could not be made is
//! repeated.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::Inner;
use super::background::or_closing;
use crate::table::{self, RunPart};

/// Pause after a check that was not attempted, mostly for lack of memory or threads.
const RETRY: Duration = Duration::from_secs(10);

/// Checks what is unchecked of the runs, once.
pub(super) async fn task(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let checking = async {
        for part in [RunPart::Filter, RunPart::Pages] {
            while check_next(&store, part).await {}
        }
    };
    or_closing(checking, &mut closing).await;
}

/// Checks a part of one run, of those in use now. Returns false if there is none, or the store was dropped.
async fn check_next(store: &Weak<Inner>, part: RunPart) -> bool {
    let Some(inner) = store.upgrade() else {
        return false;
    };
    let Some(run) = inner.sequencer.durable().layers.runs().unchecked(part) else {
        return false;
    };
    let context = Arc::clone(inner.checkpoints.context());
    drop(inner);
    if let Err(unusable) = table::check_in_use(&context, &run, part).await {
        tracing::warn!(%unusable, "a part of index and catalog was not checked; it is tried again");
        context.env.clock.sleep(RETRY).await;
    }
    true
}
