//! Answers that are usually available at once.
//!
//! Owns: [`Decision`].

use std::fmt;

use futures_util::future::BoxFuture;

/// An answer that is available at once, or a future of it. A ready answer costs no allocation.
pub enum Decision<'a, T> {
    /// The answer is available.
    Ready(T),
    /// The answer takes time: a password is hashed, or another server is asked.
    Pending(BoxFuture<'a, T>),
}

impl<T> Decision<'_, T> {
    /// Waits for the answer.
    pub async fn wait(self) -> T {
        match self {
            Self::Ready(answer) => answer,
            Self::Pending(answer) => answer.await,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Decision<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(answer) => f.debug_tuple("Ready").field(answer).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}
