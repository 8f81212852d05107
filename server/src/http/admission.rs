//! Memory for the manifests that are being pushed at a time, all connections together.
//!
//! Owns: [`Admission`]. A manifest is held whole until it is committed, so without a bound clients decide how much memory that takes.
//! Refuses: blobs, which stream through a budget of the engine's.
//!
//! What a manifest lists takes several times its bytes once it is read, and as rows of the catalog, so that only a few large ones are worked
//! on at a time: then the catalog can hold the next one up until what the last one brought is on disk.
//!
//! Invariants: a manifest gets all it may need before its first byte is read, so that nobody holds a part and waits for the rest; who
//! waits is served in turn; waiting and receiving end in bounded time, so that slow clients keep their places only so long.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::body::RequestBody;
use crate::clock::RunningClock;
use crate::registry::{Error, LARGE_MANIFEST_BYTES, Result, Source as _};

/// Large manifests that are worked on at a time.
const LARGE_AT_A_TIME: usize = 2;

/// The budget.
#[derive(Debug)]
pub(crate) struct Admission {
    room: Arc<Semaphore>,
    large: Arc<Semaphore>,
    budget: u64,
    patience: Duration,
    clock: RunningClock,
}

/// A manifest's bytes, and the room they take until this drops.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) bytes: Bytes,
    #[expect(dead_code, reason = "held for its drop")]
    room: OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held for its drop")]
    work: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Room for `budget` bytes; `patience` for each, to get it and to arrive.
    pub(super) fn new(budget: u64, patience: Duration, clock: RunningClock) -> Self {
        let budget = budget.min(u64::from(u32::MAX));
        let room = usize::try_from(budget).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(room)),
            large: Arc::new(Semaphore::new(LARGE_AT_A_TIME)),
            budget,
            patience,
            clock,
        }
    }

    /// Reads a whole body of at most `max` bytes, once there is room for it.
    pub(super) async fn receive(&self, body: &mut RequestBody, max: u64) -> Result<Admitted> {
        let wanted = body.length().unwrap_or(max);
        if wanted > max {
            return Err(Error::ManifestTooLarge { max });
        }
        let room = self.enter(wanted).await?;
        let received = self.clock.timeout(self.patience, body.collect(max)).await;
        let bytes = received.map_err(|_elapsed| Error::BodyTimeout)??;
        let bytes = bytes.ok_or(Error::ManifestTooLarge { max })?;
        let work = self.work(bytes.len()).await?;
        Ok(Admitted { bytes, room, work })
    }

    /// Waits until one of `bytes` may be worked on.
    async fn work(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>> {
        if bytes < LARGE_MANIFEST_BYTES {
            return Ok(None);
        }
        let turn = Arc::clone(&self.large).acquire_owned();
        self.turn(turn).await.map(Some)
    }

    /// Waits for room for `bytes`; what is larger than the whole budget gets all of it.
    async fn enter(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        let weight = u32::try_from(bytes.min(self.budget)).unwrap_or(u32::MAX);
        self.turn(Arc::clone(&self.room).acquire_many_owned(weight))
            .await
    }

    async fn turn(
        &self,
        entering: impl Future<Output = std::result::Result<OwnedSemaphorePermit, AcquireError>>,
    ) -> Result<OwnedSemaphorePermit> {
        match self.clock.timeout(self.patience, entering).await {
            Ok(entered) => entered.map_err(Error::internal),
            Err(_elapsed) => Err(Error::TooManyManifests),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Guards: the bodies of manifests under way never take more than the budget, who waits gets in by turn and not by size, and one
    /// larger than the budget still gets through, alone.
    #[tokio::test]
    async fn manifests_share_a_budget() {
        let admission = Admission::new(100, Duration::from_hours(1), RunningClock::start());
        let first = admission.enter(60).await.unwrap();
        let mut large = std::pin::pin!(admission.enter(1000));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = std::pin::pin!(admission.enter(1));
        assert!(small.as_mut().now_or_never().is_none(), "it overtook");
        drop(first);
        let all = large.as_mut().now_or_never().expect("its turn").unwrap();
        assert!(small.as_mut().now_or_never().is_none());
        drop(all);
        drop(small.now_or_never().expect("its turn").unwrap());
    }

    /// Guards: what takes many times its bytes is worked on a few at a time, and nobody else waits for that.
    #[tokio::test]
    async fn few_large_manifests_are_worked_on_at_a_time() {
        let admission = Admission::new(100, Duration::from_hours(1), RunningClock::start());
        let one = admission.work(LARGE_MANIFEST_BYTES).await.unwrap();
        let two = admission.work(LARGE_MANIFEST_BYTES).await.unwrap();
        assert!(one.is_some() && two.is_some());
        let mut three = std::pin::pin!(admission.work(usize::MAX));
        assert!(three.as_mut().now_or_never().is_none());
        let small = admission.work(LARGE_MANIFEST_BYTES - 1).now_or_never();
        assert!(small.expect("no wait").unwrap().is_none());
        drop(two);
        let three = three.now_or_never().expect("its turn").unwrap();
        assert!(three.is_some());
    }

    /// Guards: who waits too long is told to come again, and loses its place in the queue.
    #[tokio::test]
    async fn waiting_ends() {
        let admission = Admission::new(100, Duration::from_millis(1), RunningClock::start());
        let all = admission.enter(100).await.unwrap();
        assert!(matches!(
            admission.enter(1).await,
            Err(Error::TooManyManifests)
        ));
        drop(all);
        drop(admission.enter(100).await.unwrap());
    }
}
