//! The requests of one HTTP/2 connection, each a task of its own.
//!
//! Owns: [`StreamExecutor`], by which hyper runs them, and [`StreamReset`], which ends one: the stream is reset, what
//! it holds is dropped, and the others continue.
//! Refuses: deciding which; `active_requests` does.

use std::future::Future;

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static END: StreamReset;
}

/// Resets one stream. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamReset(CancellationToken);

impl StreamReset {
    /// That of the stream whose task this is; `None` on HTTP/1.1 and in tasks that a request starts.
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
            // Dropped, hyper's part of the stream resets it.
            if reset.run_until_cancelled(stream).await.is_none() {
                tracing::debug!("an answer was left unread on its stream");
            }
        }));
    }
}
