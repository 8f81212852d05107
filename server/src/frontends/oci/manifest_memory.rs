//! Memory for the manifests that are being pushed at a time, all connections together.
//!
//! Owns: [`Admission`]. A manifest is held whole until it is committed, so without a bound clients decide how much memory that takes.
//! Refuses: blobs, which stream through a budget of the engine's.
//!
//! Memory is counted as bytes arrive, never more than twice what has arrived, in the order of asking; for the first
//! part of each there is a reserve. So small manifests always get in, and a client that announces much and sends
//! little holds little. While others wait, the manifest of which nothing was received for the longest time is
//! rejected.
//!
//! Where many large ones have a part of all memory and wait for the rest, one at a time continues without: beside the budget there is
//! memory for the largest manifest.
//!
//! What a manifest lists takes several times its bytes once it is read, and as rows of the catalog, so that only a few large ones are worked
//! on at a time: then the catalog can hold the next one up until what the last one brought is on disk.
//!
//! Invariant: waiting and receiving end in bounded time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonnage_engine::io::Clock;
use tonnage_engine::memory::{HeldBytes, Lane, MemoryAccount, MemoryBudget};

use crate::clock::RunningClock;
use crate::registry::{Error, LARGE_MANIFEST_BYTES, Result, Source as _};
use crate::transport::request_body::RequestBody;

/// Least that a manifest gets once its first bytes are there.
const FIRST_BYTES: usize = 16 << 10;
/// How much of each manifest comes out of the reserve.
const RESERVED_BYTES: usize = 64 << 10;
/// Large manifests that are worked on at a time.
const LARGE_AT_A_TIME: usize = 2;

/// The budget.
#[derive(Debug)]
pub(crate) struct Admission {
    memory: MemoryBudget,
    /// Held by the one that continues without memory of the budget.
    finish: Arc<Semaphore>,
    large: Arc<Semaphore>,
    patience: Duration,
    clock: RunningClock,
}

/// A manifest's bytes, and the room they take until this drops.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) bytes: Bytes,
    #[expect(dead_code, reason = "held for its drop")]
    memory: Memory,
    #[expect(dead_code, reason = "held for its drop")]
    work: Option<OwnedSemaphorePermit>,
}

/// What a manifest has.
#[derive(Debug, Default)]
struct Memory {
    held: Vec<HeldBytes>,
    finishing: Option<OwnedSemaphorePermit>,
}

/// The time that a manifest has left.
#[derive(Debug)]
struct Patience {
    waiting: Duration,
    arriving: Duration,
}

impl Admission {
    /// Room for `budget` bytes; `patience` for each manifest, to get it and to arrive. One of which nothing comes for `stall` is rejected
    /// for others.
    pub(crate) fn new(
        budget: usize,
        patience: Duration,
        stall: Duration,
        clock: RunningClock,
    ) -> Self {
        let engine_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        Self {
            memory: MemoryBudget::new(budget, budget, stall, engine_clock),
            finish: Arc::new(Semaphore::new(1)),
            large: Arc::new(Semaphore::new(LARGE_AT_A_TIME)),
            patience,
            clock,
        }
    }

    /// Reads a whole body of at most `max` bytes, as there is room for it.
    pub(super) async fn receive(&self, body: &mut RequestBody, max: u64) -> Result<Admitted> {
        let wanted = body.length().unwrap_or(max);
        if wanted > max {
            return Err(Error::ManifestTooLarge { max });
        }
        let account = self.memory.account();
        let wanted = usize::try_from(wanted).map_err(Error::internal)?;
        let arriving = self.arrive(body, wanted, &account);
        let (bytes, memory) = tokio::select! {
            arrived = arriving => arrived?.ok_or(Error::ManifestTooLarge { max })?,
            () = account.revoked() => {
                tracing::debug!("a manifest stopped arriving while others waited for its memory");
                return Err(Error::TooManyManifests);
            }
        };
        let work = self.work(bytes.len()).await?;
        Ok(Admitted {
            bytes,
            memory,
            work,
        })
    }

    /// Reads a body of at most `wanted` bytes; `None` if there are more.
    async fn arrive(
        &self,
        body: &mut RequestBody,
        wanted: usize,
        account: &MemoryAccount,
    ) -> Result<Option<(Bytes, Memory)>> {
        let (mut memory, mut room, mut all) = (Memory::default(), 0, BytesMut::new());
        let mut left = Patience {
            waiting: self.patience,
            arriving: self.patience,
        };
        while !self.fill(body, &mut all, room, account, &mut left).await? {
            if all.len() > wanted {
                return Ok(None);
            }
            let next = all.len().saturating_mul(2).max(FIRST_BYTES).min(wanted);
            let lane = if next <= RESERVED_BYTES {
                Lane::Urgent
            } else {
                Lane::Bulk
            };
            let began = self.clock.now();
            let growing = self.grow(&mut memory, account, lane, next - room);
            self.turn(left.waiting, growing).await??;
            left.waiting = left.waiting.saturating_sub(self.since(began));
            room = next;
            all.reserve(room - all.len());
        }
        memory.held.iter().for_each(HeldBytes::settle);
        Ok(Some((all.freeze(), memory)))
    }

    /// Waits for more memory, or for the turn to go on without.
    async fn grow(
        &self,
        memory: &mut Memory,
        account: &MemoryAccount,
        lane: Lane,
        bytes: usize,
    ) -> Result<()> {
        if memory.finishing.is_some() {
            return Ok(());
        }
        // Nothing is waited for from this client while it waits itself.
        memory.held.iter().for_each(HeldBytes::settle);
        tokio::select! {
            biased;
            held = account.hold(lane, bytes) => memory.held.push(held),
            turn = Arc::clone(&self.finish).acquire_owned() => {
                memory.finishing = Some(turn.map_err(Error::internal)?);
                memory.held.iter().for_each(HeldBytes::unsettle);
            }
        }
        Ok(())
    }

    /// Reads on, to the end of the body or until there are more than `room` bytes. Whether it ended.
    async fn fill(
        &self,
        body: &mut RequestBody,
        all: &mut BytesMut,
        room: usize,
        account: &MemoryAccount,
        left: &mut Patience,
    ) -> Result<bool> {
        let began = self.clock.now();
        let filling = async {
            while all.len() <= room {
                match body.next().await.map_err(of_manifest)? {
                    Some(bytes) => all.extend_from_slice(&bytes),
                    None => return Ok(true),
                }
                account.progressed();
            }
            Ok(false)
        };
        let filled = self.clock.timeout(left.arriving, filling).await;
        left.arriving = left.arriving.saturating_sub(self.since(began));
        filled.map_err(|_elapsed| Error::BodyTimeout)?
    }

    fn since(&self, began: Duration) -> Duration {
        self.clock.now().saturating_sub(began)
    }

    /// Waits until one of `bytes` may be worked on.
    async fn work(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>> {
        if bytes < LARGE_MANIFEST_BYTES {
            return Ok(None);
        }
        let entering = Arc::clone(&self.large).acquire_owned();
        let entered = self.turn(self.patience, entering).await?;
        entered.map(Some).map_err(Error::internal)
    }

    async fn turn<T>(&self, patience: Duration, entering: impl Future<Output = T>) -> Result<T> {
        let entered = self.clock.timeout(patience, entering).await;
        entered.map_err(|_elapsed| Error::TooManyManifests)
    }
}

/// What a failure of a body means where it is a manifest's.
fn of_manifest(error: Error) -> Error {
    if matches!(error, Error::BodyBroken) {
        return Error::ManifestBroken;
    }
    error
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// Guards: what takes many times its bytes is worked on a few at a time, and small ones do not wait for that.
    #[tokio::test]
    async fn few_large_manifests_are_worked_on_at_a_time() {
        let admission = Admission::new(100, HOUR, HOUR, RunningClock::start());
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

    /// Guards: where all memory is used one continues without, and the next one has its turn after it; one that waits too long is
    /// rejected.
    #[tokio::test(start_paused = true)]
    async fn one_continues_without_memory() {
        let patience = Duration::from_secs(1);
        let admission = Admission::new(100, patience, HOUR, RunningClock::start());
        let accounts = [(); 3].map(|()| admission.memory.account());
        let mut memory = [(); 3].map(|()| Memory::default());
        let mut waited = Vec::new();
        for (memory, account) in memory.iter_mut().zip(&accounts) {
            let growing = admission.grow(memory, account, Lane::Bulk, 75);
            waited.push(admission.turn(patience, growing).await);
        }
        assert!(memory[0].finishing.is_none() && memory[1].finishing.is_some());
        assert!(matches!(waited[2], Err(Error::TooManyManifests)));
        memory[1] = Memory::default();
        let growing = admission.grow(&mut memory[2], &accounts[2], Lane::Bulk, 75);
        growing.now_or_never().expect("its turn").unwrap();
    }
}
