//! The requests of one HTTP/2 connection, each a task of its own.
//!
//! Owns: [`StreamExecutor`], with which hyper runs them, and [`StreamReset`], which resets one stream and drops what it
//! holds. The others continue.
//! Refuses: choosing the stream, which `active_requests` does.

use std::future::Future;

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static END: StreamReset;
}

/// Resets one stream. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamReset(CancellationToken);

impl StreamReset {
    /// Returns the reset of the current task's stream; `None` on HTTP/1.1 and in tasks that a request starts.
    pub(super) fn current() -> Option<Self> {
        END.try_with(Clone::clone).ok()
    }

    pub(super) fn reset(&self) {
        self.0.cancel();
    }
}

/// Runs each stream until it ends or is reset.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let end = StreamReset::default();
        let reset = end.0.clone();
        tokio::spawn(END.scope(end, async move {
            // Dropping hyper's future of the stream resets it.
            if reset.run_until_cancelled(stream).await.is_none() {
                tracing::debug!("an answer was left unread on its stream");
            }
        }));
    }
}
