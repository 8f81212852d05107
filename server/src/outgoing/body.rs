//! A body that arrives from another registry.
//!
//! Owns: the least rate at which it must arrive.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::PeerLimits;
use crate::clock::RunningClock;
use crate::reason::describe;
use crate::registry::peer::PeerError;

/// Measures a body: so many bytes must arrive in each period of waiting. Time in which the receiver does not ask for
/// bytes does not count.
struct Paced {
    body: Incoming,
    clock: RunningClock,
    limits: PeerLimits,
    waited: Duration,
    received: u64,
}

/// Returns the bytes of a body, which must arrive at the least rate of `limits`.
pub(super) fn paced(
    body: Incoming,
    clock: RunningClock,
    limits: PeerLimits,
) -> BoxStream<'static, Result<Bytes, PeerError>> {
    let paced = Paced {
        body,
        clock,
        limits,
        waited: Duration::ZERO,
        received: 0,
    };
    let pieces = stream::try_unfold(paced, |mut paced| async move {
        let piece = paced.next().await?;
        Ok(piece.map(|piece| (piece, paced)))
    });
    pieces.boxed()
}

impl Paced {
    async fn next(&mut self) -> Result<Option<Bytes>, PeerError> {
        loop {
            let left = self.limits.period.saturating_sub(self.waited);
            let begun = self.clock.now();
            let frame = self.clock.timeout(left, self.body.frame()).await;
            self.waited += self.clock.now().saturating_sub(begun);
            let Ok(frame) = frame else {
                if self.received < self.limits.bytes_per_period {
                    return Err(PeerError::TooSlow);
                }
                self.waited = Duration::ZERO;
                self.received = 0;
                continue;
            };
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| PeerError::Broken(describe(&error)))?;
            // Trailers are not content.
            if let Ok(bytes) = frame.into_data() {
                self.received += bytes.len() as u64;
                if self.received >= self.limits.bytes_per_period {
                    self.waited = Duration::ZERO;
                    self.received = 0;
                }
                return Ok(Some(bytes));
            }
        }
    }
}
