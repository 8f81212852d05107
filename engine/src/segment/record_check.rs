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
        let result = running.clone().await;
        let mut state = self.state.lock();
        match (&result, &*state) {
            (Ok(()), _) => *state = State::Passed,
            // Others may still hold the one that failed; it is not given to anyone new.
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

    /// Guards: callers that come while a check runs share its result, and one that comes after its failure checks again, also
    /// while others have not seen that failure yet.
    #[test]
    fn a_failed_check_is_not_given_to_the_next() {
        let record = RecordCheck::default();
        let (fail, failed) = oneshot::channel::<()>();
        let mut first = Box::pin(record.run(async {
            failed.await.unwrap_or_default();
            Err(Error::Closed)
        }));
        let mut second = Box::pin(record.run(async { Ok(()) }));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        fail.send(()).unwrap();
        assert!(first.now_or_never().unwrap().is_err());
        let third = record.run(async { Ok(()) }).now_or_never();
        third.unwrap().expect("a check of its own");
        assert!(second.now_or_never().unwrap().is_err());
        record
            .run(async { Err(Error::Closed) })
            .now_or_never()
            .unwrap()
            .expect("it passed before");
    }
}
