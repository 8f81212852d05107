//! The check of a dedicated segment's record, once for each open handle.
//!
//! Owns: [`RecordCheck`]: the running check, and its result. Refuses: what is checked (`reader`). Later reads compare
//! the table with the result, because the file may change while it is open.
//!
//! Invariants: at most one check of a handle runs, and callers that come meanwhile share its result. It runs as long as
//! any of them waits for it. After a failure the next caller checks again.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};

use crate::error::Result;
use crate::sync::Mutex;

/// Checksums of the slices of a checksum table that belongs to its blob.
pub(super) type SliceChecksums = Arc<[u32]>;

/// Whether the record was found intact, and with which table.
#[derive(Debug, Default)]
pub(super) struct RecordCheck {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unknown,
    /// A check, while anyone waits for it.
    Running(WeakShared<BoxFuture<'static, Result<SliceChecksums>>>),
    Passed(SliceChecksums),
}

impl RecordCheck {
    /// Waits for the running check, or runs `check`, unless one has passed.
    pub(super) async fn run(
        &self,
        check: impl Future<Output = Result<SliceChecksums>> + Send + 'static,
    ) -> Result<SliceChecksums> {
        let running = {
            let mut state = self.state.lock();
            let running = match &*state {
                State::Passed(slices) => return Ok(Arc::clone(slices)),
                State::Running(running) => running.upgrade(),
                State::Unknown => None,
            };
            running.unwrap_or_else(|| {
                let running = check.boxed().shared();
                *state = running.downgrade().map_or(State::Unknown, State::Running);
                running
            })
        };
        let result = running.clone().await;
        let mut state = self.state.lock();
        match (&result, &*state) {
            (Ok(slices), _) => *state = State::Passed(Arc::clone(slices)),
            // Others may still have the one that failed, but no new caller gets it.
            (Err(_), State::Running(weak))
                if weak.upgrade().is_some_and(|one| one.ptr_eq(&running)) =>
            {
                *state = State::Unknown;
            }
            (Err(_), _) => {}
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::sync::oneshot;

    /// Guards: callers that come while a check runs share its result. One that comes after its failure checks again,
    /// even if others have not seen that failure yet.
    #[test]
    fn a_failed_check_is_not_shared_with_later_callers() {
        let record = RecordCheck::default();
        let (fail, failed) = oneshot::channel::<()>();
        let mut first = Box::pin(record.run(async {
            failed.await.unwrap_or_default();
            Err(Error::Closed)
        }));
        let mut second = Box::pin(record.run(async { Ok(Arc::from([])) }));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        fail.send(()).unwrap();
        assert!(first.now_or_never().unwrap().is_err());
        let third = record.run(async { Ok(Arc::from([])) }).now_or_never();
        third.unwrap().expect("a check of its own");
        assert!(second.now_or_never().unwrap().is_err());
        record
            .run(async { Err(Error::Closed) })
            .now_or_never()
            .unwrap()
            .expect("it passed before");
    }
}
