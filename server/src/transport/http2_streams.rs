//! The requests of one connection of HTTP/2, each a task of its own.
//!
//! Owns: [`StreamTasks`], by which hyper runs them, and [`StreamEnd`], which ends one: its stream is reset, what it holds is dropped, and
//! the others continue.
//! Refuses: deciding which; `active_requests` does.

use std::future::Future;
use std::sync::Arc;

use hyper::rt::Executor;
use tokio::sync::Notify;

tokio::task_local! {
    static END: StreamEnd;
}

/// Ends one stream. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamEnd(Arc<Notify>);

impl StreamEnd {
    /// Of the stream whose task this is; none on HTTP/1.1 and in tasks that a request starts.
    pub(super) fn current() -> Option<Self> {
        END.try_with(Clone::clone).ok()
    }

    pub(super) fn end(&self) {
        self.0.notify_one();
    }
}

/// Runs each stream until its end, or until it is ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamTasks;

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let end = StreamEnd::default();
        let ended = Arc::clone(&end.0);
        tokio::spawn(END.scope(end, async move {
            tokio::select! {
                () = stream => {}
                // Dropped, hyper's part of the stream resets it.
                () = ended.notified() => tracing::debug!("an answer was left unread on its stream"),
            }
        }));
    }
}
