//! When a cycle rests, so that requests have most of the machine.
//!
//! Owns: [`Rest`]. Refuses: the work between two rests.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::store::Inner;
use crate::store::background::or_closing;

/// How much longer than it works a cycle rests after each batch.
const TIMES: u32 = 3;
/// Longest rest.
const MAX: Duration = Duration::from_millis(100);
/// Time after which a cycle rests no longer, so that space is back soon.
const PATIENCE: Duration = Duration::from_secs(20);

/// The rests of one cycle.
pub(super) struct Rest<'a> {
    inner: &'a Inner,
    is_background: bool,
    begun: Duration,
}

impl<'a> Rest<'a> {
    /// Begins a cycle. Only one that no operator asked for rests.
    pub(super) fn new(inner: &'a Inner, is_background: bool) -> Self {
        Self {
            inner,
            is_background,
            begun: inner.env.clock.monotonic(),
        }
    }

    /// Rests for a multiple of the time since `working`, but not for long, and not while an operator waits. Returns the
    /// time at which work continues.
    pub(super) async fn after(&self, working: Duration) -> Duration {
        let (inner, clock) = (self.inner, &self.inner.env.clock);
        let now = clock.monotonic();
        let is_urgent = !self.is_background
            || inner.collection.waiting.load(Ordering::Relaxed) > 0
            || now.saturating_sub(self.begun) >= PATIENCE;
        let rest = (now.saturating_sub(working) * TIMES).min(MAX);
        if is_urgent || rest == Duration::ZERO {
            return now;
        }
        or_closing(clock.sleep(rest), &mut inner.closing.subscribe()).await;
        clock.monotonic()
    }
}
