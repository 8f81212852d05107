//! Answers whose bytes are mapped from files, not copied.
//!
//! Owns: [`MappedAnswers`]: for which clients they are allowed, and that each write of them is watched.
//! Refuses: how a change is noticed, which [`AnswerMemory`] knows.
//!
//! Only for fast clients of plain HTTP/1.1: hyper passes the bytes of their answers to the socket without a copy, and
//! soon after they were checked. On HTTP/2 a part of an answer is copied in other places.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use futures_util::future::{BoxFuture, FutureExt as _};

use super::front_end::AnswerMemory;

/// A write that waited this long for room first makes sure that the bytes are still in memory. So it does not wait for
/// the disk on an async worker.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The mapped answers of one connection.
pub(super) struct MappedAnswers {
    memory: Arc<dyn AnswerMemory>,
    /// Resolves to whether what was read again is as it was.
    loading: Option<BoxFuture<'static, bool>>,
}

impl MappedAnswers {
    /// Makes those of a connection whose client is not known to be fast.
    pub(super) fn new(memory: Arc<dyn AnswerMemory>) -> Self {
        Self {
            memory,
            loading: None,
        }
    }

    /// Allows them for a fast client.
    pub(super) fn set_fast(&self, is_fast: bool) {
        self.memory.set_mapping_allowed(is_fast);
    }

    /// Makes sure that a write after `pause` finds the bytes in memory.
    ///
    /// # Errors
    /// They are no longer those that were checked.
    pub(super) fn poll_loaded(
        &mut self,
        cx: &mut Context<'_>,
        pause: Duration,
    ) -> Poll<io::Result<()>> {
        if self.loading.is_none() && pause >= PAUSE_MIN {
            self.loading = self.memory.load_mapped();
        }
        let Some(loading) = &mut self.loading else {
            return Poll::Ready(Ok(()));
        };
        let is_unchanged = ready!(loading.poll_unpin(cx));
        self.loading = None;
        Poll::Ready(if is_unchanged { Ok(()) } else { Err(changed()) })
    }

    /// Runs a write of bytes of answers.
    ///
    /// # Errors
    /// That of the write, or the bytes may not be those that were checked.
    pub(super) fn write(
        &self,
        write: impl FnOnce() -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut write = Some(write);
        let mut outcome = Poll::Pending;
        let is_unchanged = self.memory.used_unchanged(&mut || {
            if let Some(write) = write.take() {
                outcome = write();
            }
        });
        if is_unchanged {
            outcome
        } else {
            Poll::Ready(Err(changed()))
        }
    }
}

/// Bytes of an answer may be others than those that were checked.
#[derive(Debug)]
pub(super) struct AnswerChanged;

impl fmt::Display for AnswerChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes of an answer may have changed after they were checked")
    }
}

impl Error for AnswerChanged {}

fn changed() -> io::Error {
    tracing::warn!(
        "an answer was aborted: the kernel had evicted a part of it, and read it again with other content or too often; clients repeat such pulls; if it is frequent, add memory, or stop the server and run `tonnage fsck --deep`"
    );
    io::Error::other(AnswerChanged)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use super::*;

    /// Memory whose bytes have changed or not, and of which a part is on the disk.
    #[derive(Debug, Default)]
    struct Memory {
        is_allowed: AtomicBool,
        is_changed: AtomicBool,
    }

    impl AnswerMemory for Memory {
        fn record_progress(&self) {}

        fn revoked(&self) -> BoxFuture<'static, ()> {
            std::future::pending().boxed()
        }

        fn record_drop(&self) {}

        fn set_mapping_allowed(&self, is_allowed: bool) {
            self.is_allowed.store(is_allowed, Ordering::Relaxed);
        }

        fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool {
            use_bytes();
            !self.is_changed.load(Ordering::Relaxed)
        }

        fn load_mapped(&self) -> Option<BoxFuture<'static, bool>> {
            let is_unchanged = !self.is_changed.load(Ordering::Relaxed);
            let read = async move {
                tokio::task::yield_now().await;
                is_unchanged
            };
            Some(read.boxed())
        }
    }

    /// Guards: answers are mapped only while their client is fast. A write whose bytes may have changed fails, and so
    /// does one after a pause; before that one, what is not in memory is read.
    #[test]
    fn what_may_have_changed_is_not_sent() {
        let memory = Arc::new(Memory::default());
        let mut mapped = MappedAnswers::new(Arc::clone(&memory) as Arc<dyn AnswerMemory>);
        let cx = &mut Context::from_waker(Waker::noop());
        for is_fast in [true, false] {
            mapped.set_fast(is_fast);
            assert_eq!(memory.is_allowed.load(Ordering::Relaxed), is_fast);
        }
        for is_changed in [false, true] {
            memory.is_changed.store(is_changed, Ordering::Relaxed);
            let written = mapped.write(|| Poll::Ready(Ok(7)));
            assert_eq!(matches!(written, Poll::Ready(Ok(7))), !is_changed);
            let at_once = mapped.poll_loaded(cx, PAUSE_MIN / 2);
            assert!(matches!(at_once, Poll::Ready(Ok(()))), "no pause");
            assert!(mapped.poll_loaded(cx, PAUSE_MIN).is_pending(), "it is read");
            let loaded = mapped.poll_loaded(cx, PAUSE_MIN);
            assert_eq!(matches!(loaded, Poll::Ready(Ok(()))), !is_changed);
        }
    }
}
