//! Answers that are usually available at once.
//!
//! Owns: [`Decision`], and the time that one may take.

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::Refused;

/// Time that a pending answer has. Clients give up on a request after about 30 s.
const DECISION_TIME_MAX: Duration = Duration::from_secs(10);

/// An answer that is available at once, or a future of it. A ready answer costs no allocation.
pub enum Decision<'a, T> {
    /// The answer is available.
    Ready(T),
    /// The answer takes time: a password is hashed, or another server is asked.
    Pending(BoxFuture<'a, T>),
}

impl<'a, T: 'a> Decision<'a, T> {
    /// Returns what `change` makes of the answer.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'a) -> Decision<'a, U> {
        match self {
            Self::Ready(answer) => Decision::Ready(change(answer)),
            Self::Pending(answer) => Decision::Pending(answer.map(change).boxed()),
        }
    }

    /// Returns the answer if it is available; `None` if it has to be asked for again and waited for.
    pub fn at_once(self) -> Option<T> {
        match self {
            Self::Ready(answer) => Some(answer),
            Self::Pending(_) => None,
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if it does not come in time.
    pub async fn wait(self) -> Result<T, Refused> {
        match self {
            Self::Ready(answer) => Ok(answer),
            Self::Pending(answer) => {
                let in_time = tokio::time::timeout(DECISION_TIME_MAX, answer).await;
                in_time.map_err(|_elapsed| {
                    // Anyone can cause this, so it is no error in the log.
                    tracing::debug!(limit = ?DECISION_TIME_MAX, "credentials were not checked in time");
                    Refused::Unavailable
                })
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: an authenticator whose server does not answer cannot hold a request for longer than its time.
    #[tokio::test(start_paused = true)]
    async fn pending_decisions_have_a_deadline() {
        let never = Decision::<()>::Pending(Box::pin(std::future::pending()));
        assert_eq!(never.wait().await, Err(Refused::Unavailable));
        let slow = tokio::time::sleep(DECISION_TIME_MAX / 2);
        assert_eq!(Decision::Pending(Box::pin(slow)).wait().await, Ok(()));
    }
}
