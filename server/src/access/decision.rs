//! Answers that are mostly there at once.
//!
//! Owns: [`Decision`].

use std::fmt;

use futures_util::future::BoxFuture;

/// An answer that is there, or one that has to be waited for. One that is there costs no allocation.
pub enum Decision<'a, T> {
    /// It is there.
    Ready(T),
    /// It has to be waited for: a password is hashed, or another server is asked.
    Pending(BoxFuture<'a, T>),
}

impl<T> Decision<'_, T> {
    /// The answer.
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
