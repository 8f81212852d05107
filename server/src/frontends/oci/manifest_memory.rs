//! The memory budget for manifests that are being pushed, over all connections.
//!
//! Owns: [`ManifestMemory`]. A manifest is held whole until it is committed, so without a limit clients could use any
//! amount of memory.
//! Refuses: blobs, which have a budget in the engine.
//!
//! Memory is reserved as bytes arrive, in the order of the requests, and never more than twice what has arrived. So a
//! client that announces much and sends little holds little. The first part of each manifest comes from a reserve, so
//! small manifests are always accepted. While others wait, the manifest that has received nothing for the longest time
//! is rejected. If all large manifests wait for memory, one at a time continues without: beyond the budget there is
//! memory for one manifest of the largest size.
//!
//! The entries of a manifest take several times its bytes, both parsed and as rows of the catalog. So only
//! [`LARGE_MAX`] large ones are processed at a time. Then the catalog can delay the next one until the rows of
//! the previous one are on disk.
//!
//! Invariant: waiting and receiving end in bounded time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonnage_engine::io::Clock;
use tonnage_engine::{HeldBytes, MemoryAccount, MemoryBudget, MemoryPriority};

use crate::clock::RunningClock;
use crate::registry::{Error, LARGE_MANIFEST_BYTES, Result, Source as _};
use crate::transport::request_body::RequestBody;

/// Smallest reservation of a manifest in bytes, once its first bytes have arrived.
const FIRST_BYTES: usize = 16 << 10;
/// Bytes of each manifest that come from the reserve.
const RESERVED_BYTES: usize = 64 << 10;
/// Large manifests that are processed at a time.
const LARGE_MAX: usize = 2;

/// The memory budget for manifests.
#[derive(Debug)]
pub(crate) struct ManifestMemory {
    memory: MemoryBudget,
    /// The permit of the manifest that continues without memory of the budget.
    finish: Arc<Semaphore>,
    large: Arc<Semaphore>,
    timeout: Duration,
    clock: RunningClock,
}

/// The bytes of a manifest, with the memory that is reserved for them until this is dropped.
#[derive(Debug)]
pub(super) struct ReceivedManifest {
    pub(super) bytes: Bytes,
    #[expect(dead_code, reason = "held for its drop")]
    memory: Memory,
    #[expect(dead_code, reason = "held for its drop")]
    work: Option<OwnedSemaphorePermit>,
}

/// The memory that is reserved for one manifest.
#[derive(Debug, Default)]
struct Memory {
    held: Vec<HeldBytes>,
    finishing: Option<OwnedSemaphorePermit>,
}

/// The time that a manifest has left.
#[derive(Debug)]
struct TimeLeft {
    waiting: Duration,
    arriving: Duration,
}

impl ManifestMemory {
    /// Creates a budget of `budget` bytes. Each manifest may wait `timeout` for memory and take as long to arrive. A
    /// manifest of which nothing arrives for `stall` is rejected while others wait.
    pub(crate) fn new(
        budget: usize,
        timeout: Duration,
        stall: Duration,
        clock: RunningClock,
    ) -> Self {
        let engine_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        Self {
            memory: MemoryBudget::new(budget, budget, stall, engine_clock),
            finish: Arc::new(Semaphore::new(1)),
            large: Arc::new(Semaphore::new(LARGE_MAX)),
            timeout,
            clock,
        }
    }

    /// Reads a whole body of at most `max` bytes, as fast as memory for it becomes free.
    pub(super) async fn receive(
        &self,
        body: &mut RequestBody,
        max: u64,
    ) -> Result<ReceivedManifest> {
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
        Ok(ReceivedManifest {
            bytes,
            memory,
            work,
        })
    }

    /// Reads a body of at most `wanted` bytes. Returns `None` if it has more.
    async fn arrive(
        &self,
        body: &mut RequestBody,
        wanted: usize,
        account: &MemoryAccount,
    ) -> Result<Option<(Bytes, Memory)>> {
        let (mut memory, mut room, mut all) = (Memory::default(), 0, BytesMut::new());
        let mut left = TimeLeft {
            waiting: self.timeout,
            arriving: self.timeout,
        };
        while !self.fill(body, &mut all, room, account, &mut left).await? {
            if all.len() > wanted {
                return Ok(None);
            }
            let next = all.len().saturating_mul(2).max(FIRST_BYTES).min(wanted);
            let priority = if next <= RESERVED_BYTES {
                MemoryPriority::Urgent
            } else {
                MemoryPriority::Bulk
            };
            let began = self.clock.now();
            let growing = self.grow(&mut memory, account, priority, next - room);
            self.turn(left.waiting, growing).await??;
            left.waiting = left.waiting.saturating_sub(self.since(began));
            room = next;
            all.reserve(room - all.len());
        }
        memory.held.iter().for_each(HeldBytes::settle);
        Ok(Some((all.freeze(), memory)))
    }

    /// Waits for more memory, or for the permit to continue without.
    async fn grow(
        &self,
        memory: &mut Memory,
        account: &MemoryAccount,
        priority: MemoryPriority,
        bytes: usize,
    ) -> Result<()> {
        if memory.finishing.is_some() {
            return Ok(());
        }
        // While this manifest waits for memory, the server does not wait for its client.
        memory.held.iter().for_each(HeldBytes::settle);
        tokio::select! {
            biased;
            held = account.hold(priority, bytes) => memory.held.push(held),
            turn = Arc::clone(&self.finish).acquire_owned() => {
                memory.finishing = Some(turn.map_err(Error::internal)?);
                memory.held.iter().for_each(HeldBytes::unsettle);
            }
        }
        Ok(())
    }

    /// Reads to the end of the body, or until there are more than `room` bytes. Returns whether the body ended.
    async fn fill(
        &self,
        body: &mut RequestBody,
        all: &mut BytesMut,
        room: usize,
        account: &MemoryAccount,
        left: &mut TimeLeft,
    ) -> Result<bool> {
        let began = self.clock.now();
        let filling = async {
            while all.len() <= room {
                match body.next().await.map_err(of_manifest)? {
                    Some(bytes) => all.extend_from_slice(&bytes),
                    None => return Ok(true),
                }
                account.record_progress();
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

    /// Waits until a manifest of `bytes` bytes may be processed.
    async fn work(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>> {
        if bytes < LARGE_MANIFEST_BYTES {
            return Ok(None);
        }
        let entering = Arc::clone(&self.large).acquire_owned();
        let entered = self.turn(self.timeout, entering).await?;
        entered.map(Some).map_err(Error::internal)
    }

    async fn turn<T>(&self, timeout: Duration, entering: impl Future<Output = T>) -> Result<T> {
        let entered = self.clock.timeout(timeout, entering).await;
        entered.map_err(|_elapsed| Error::TooManyManifests)
    }
}

/// Maps an error of a body to the one for manifests.
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

    /// Guards: only a few large manifests are processed at a time, and small ones do not wait for them.
    #[tokio::test]
    async fn few_large_manifests_are_worked_on_at_a_time() {
        let manifest_memory = ManifestMemory::new(100, HOUR, HOUR, RunningClock::start());
        let one = manifest_memory.work(LARGE_MANIFEST_BYTES).await.unwrap();
        let two = manifest_memory.work(LARGE_MANIFEST_BYTES).await.unwrap();
        assert!(one.is_some() && two.is_some());
        let mut three = std::pin::pin!(manifest_memory.work(usize::MAX));
        assert!(three.as_mut().now_or_never().is_none());
        let small = manifest_memory
            .work(LARGE_MANIFEST_BYTES - 1)
            .now_or_never();
        assert!(small.expect("no wait").unwrap().is_none());
        drop(two);
        let three = three.now_or_never().expect("its turn").unwrap();
        assert!(three.is_some());
    }

    /// Guards: when all memory is used, one manifest continues without, and the next one after it; one that waits too
    /// long is rejected.
    #[tokio::test(start_paused = true)]
    async fn one_continues_without_memory() {
        let timeout = Duration::from_secs(1);
        let manifest_memory = ManifestMemory::new(100, timeout, HOUR, RunningClock::start());
        let accounts = [(); 3].map(|()| manifest_memory.memory.account());
        let mut memory = [(); 3].map(|()| Memory::default());
        let mut waited = Vec::new();
        for (memory, account) in memory.iter_mut().zip(&accounts) {
            let growing = manifest_memory.grow(memory, account, MemoryPriority::Bulk, 75);
            waited.push(manifest_memory.turn(timeout, growing).await);
        }
        assert!(memory[0].finishing.is_none() && memory[1].finishing.is_some());
        assert!(matches!(waited[2], Err(Error::TooManyManifests)));
        memory[1] = Memory::default();
        let growing = manifest_memory.grow(&mut memory[2], &accounts[2], MemoryPriority::Bulk, 75);
        growing.now_or_never().expect("its turn").unwrap();
    }
}
