//! The check of a dedicated segment's record, once for each open handle.
//!
//! Owns: [`RecordCheck`]: the check that runs, and its result. Refuses: what is checked (`reader`).
//!
//! Invariants: at most one check of a handle runs, and callers that come meanwhile share its result. It runs as long as
//! any of them waits for it. After a failure the next caller checks again.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};

use crate::error::Result;
use crate::sync::Mutex;

/// Whether the record was found whole.
#[derive(Debug, Default)]
pub(super) struct RecordCheck {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unknown,
    /// A check, while anyone waits for it.
    Running(WeakShared<BoxFuture<'static, Result<()>>>),
    Passed,
}

impl RecordCheck {
    /// Waits for the check that runs, or runs `check`, unless one has passed.
    pub(super) async fn run(
        &self,
        check: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<()> {
        let running = {
            let mut state = self.state.lock();
            let running = match &*state {
                State::Passed => return Ok(()),
                State::Running(running) => running.upgrade(),
                State::Unknown => None,
            };
            running.unwrap_or_else(|| {
                let running = check.boxed().shared();
                *state = running.downgrade().map_or(State::Unknown, State::Running);
                running
            })
        };
        running.await?;
        *self.state.lock() = State::Passed;
        Ok(())
    }
}
