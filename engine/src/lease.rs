//! Leases: expiring pins on digests that nothing references yet (DESIGN D4).
//!
//! Owns: who may not be collected although the catalog would allow it. An answer that promises existence
//! (upload finished, HEAD 200, mount 201) grants a lease; work in progress holds a [`Pin`].
//! Refuses: knowing what is referenced; the caller grants only where nothing is, so that a million
//! HEADs of referenced blobs cost no memory.
//!
//! Invariants: sharded by keyed hash, because clients choose digests; no lock is held across an I/O; a
//! lease never shortens; time is monotonic and counts from this process's start at the earliest.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::io::Clock;
use crate::sync::Mutex;

const SHARDS: usize = 64;

/// All leases and pins of an open store.
#[derive(Debug)]
pub struct Leases {
    shards: Vec<Mutex<HashMap<Digest, Entry>>>,
    // std's RandomState is SipHash under a key of this process: clients cannot aim at one shard.
    hasher: std::hash::RandomState,
    clock: Arc<dyn Clock>,
    grace: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    pins: u32,
    until: Duration,
}

impl Leases {
    /// No leases yet; each grant lasts `grace`.
    pub fn new(clock: Arc<dyn Clock>, grace: Duration) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            shards,
            hasher: std::hash::RandomState::new(),
            clock,
            grace,
        })
    }

    fn shard(&self, digest: &Digest) -> &Mutex<HashMap<Digest, Entry>> {
        let wanted = self.hasher.hash_one(digest) % SHARDS as u64;
        let index = usize::try_from(wanted).unwrap_or_default();
        match self.shards.get(index) {
            Some(shard) => shard,
            None => unreachable!("a shard number is below SHARDS"),
        }
    }

    /// Keeps `digest` from being collected for the grace period from now.
    pub fn grant(&self, digest: Digest) {
        let until = self.clock.monotonic() + self.grace;
        let mut shard = self.shard(&digest).lock();
        let entry = shard.entry(digest).or_default();
        entry.until = entry.until.max(until);
    }

    /// Keeps `digests` from being collected until the pin drops.
    pub fn pin(self: &Arc<Self>, digests: &[Digest]) -> Pin {
        for digest in digests {
            self.shard(digest).lock().entry(*digest).or_default().pins += 1;
        }
        Pin {
            leases: Arc::clone(self),
            digests: digests.to_vec(),
        }
    }

    /// Whether a pin or an unexpired lease holds `digest`.
    pub fn holds(&self, digest: &Digest) -> bool {
        let now = self.clock.monotonic();
        let shard = self.shard(digest).lock();
        shard
            .get(digest)
            .is_some_and(|entry| entry.pins > 0 || entry.until > now)
    }

    /// Forgets what has expired; returns how many digests are still held.
    pub fn expire(&self) -> usize {
        let now = self.clock.monotonic();
        let mut held = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, entry| entry.pins > 0 || entry.until > now);
            held += shard.len();
        }
        held
    }
}

/// Holds digests until it drops.
#[derive(Debug)]
pub struct Pin {
    leases: Arc<Leases>,
    digests: Vec<Digest>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let now = self.leases.clock.monotonic();
        for digest in &self.digests {
            let mut shard = self.leases.shard(digest).lock();
            if let Some(entry) = shard.get_mut(digest) {
                assert!(entry.pins > 0, "a pin on {digest} was dropped twice");
                entry.pins -= 1;
                if entry.pins == 0 && entry.until <= now {
                    shard.remove(digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::io::TaskFuture;

    #[derive(Debug, Default)]
    struct HandClock(Mutex<Duration>);

    impl Clock for HandClock {
        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
        fn wall_unix_ms(&self) -> u64 {
            0
        }
        fn sleep(&self, _: Duration) -> TaskFuture {
            Box::pin(std::future::pending())
        }
    }

    /// Guards: a lease ends with its grace, a pin with its drop, and neither leaves memory behind.
    #[test]
    fn leases_end_with_grace_and_pins_with_drop() {
        let clock = Arc::new(HandClock::default());
        let as_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let leases = Leases::new(as_clock, Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        assert!(!leases.holds(&digest));
        leases.grant(digest);
        let pin = leases.pin(&[digest, digest]);
        *clock.0.lock() = Duration::from_secs(61);
        assert!(leases.holds(&digest), "the pin outlives the lease");
        assert_eq!(leases.expire(), 1);
        drop(pin);
        assert!(!leases.holds(&digest));
        assert_eq!(leases.expire(), 0);
    }
}
