//! Leases: expiring pins on digests that nothing references yet (DESIGN D4).
//!
//! Owns: which digests must not be collected although nothing references them. An answer that promises existence
//! (upload finished, HEAD 200, conditional GET, mount 201) grants a lease; work in progress holds a [`Pin`]. Refuses:
//! to decide what is referenced. The caller grants a lease only for what nothing references, so that a million HEADs of
//! referenced blobs cost no memory. It ends the lease once a manifest references the digest.
//!
//! Invariants: sharded by keyed hash, because clients choose digests. Collection decides under the lock of a shard. No
//! lock is held across an I/O, and no two at once. Only [`Leases::end_leases`] shortens a lease. Memory is bounded. The
//! clock counts only time in which this process ran.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::io::Clock;
use crate::sync::{Mutex, MutexGuard};

const SHARDS: usize = 64;
/// Leases in one shard, about 110 bytes each. One more makes the shard protect all of its digests until the last has
/// expired.
const LEASES_MAX: usize = 4096;

/// All leases and pins of an open store.
#[derive(Debug)]
pub(crate) struct Leases {
    shards: Vec<Mutex<Shard>>,
    // std's RandomState is SipHash with a key of this process, so clients cannot aim at one shard.
    hasher: std::hash::RandomState,
    clock: Arc<dyn Clock>,
    grace: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Digest, Entry>,
    /// Until then every digest of the shard is protected, because there was no room for its leases.
    all_until: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    pins: u32,
    until: Duration,
}

impl Leases {
    /// Creates an empty set of leases; each grant lasts `grace`.
    pub(crate) fn new(clock: Arc<dyn Clock>, grace: Duration) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            shards,
            hasher: std::hash::RandomState::new(),
            clock,
            grace,
        })
    }

    fn index(&self, digest: &Digest) -> usize {
        let wanted = self.hasher.hash_one(digest) % SHARDS as u64;
        usize::try_from(wanted).unwrap_or_default()
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        match self.shards.get(index) {
            Some(shard) => shard.lock(),
            None => unreachable!("a shard number is below SHARDS"),
        }
    }

    /// Acts on each digest under the lock of its shard, taking each lock once.
    fn each(&self, digests: &[Digest], mut act: impl FnMut(&mut Shard, &Digest)) {
        if let [digest] = digests {
            return act(&mut self.lock(self.index(digest)), digest);
        }
        let mut by_shard: Vec<_> = digests.iter().map(|one| (self.index(one), one)).collect();
        by_shard.sort_unstable_by_key(|(index, _)| *index);
        for group in by_shard.chunk_by(|one, next| one.0 == next.0) {
            let Some((index, _)) = group.first() else {
                continue;
            };
            let mut shard = self.lock(*index);
            for (_, digest) in group {
                act(&mut shard, digest);
            }
        }
    }

    /// Protects `digest` from collection for the grace period from now.
    pub(crate) fn grant(&self, digest: Digest) {
        let now = self.clock.monotonic();
        let until = now + self.grace;
        let mut shard = self.lock(self.index(&digest));
        shard.make_room(&digest, now);
        let entry = shard.entries.entry(digest).or_default();
        entry.until = entry.until.max(until);
    }

    /// Returns the time by this clock, for [`Leases::end_leases`].
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Ends the leases of `digests` that were granted by `since`. Manifests have referenced these digests since then,
    /// and their grace starts when the last reference is removed. A later lease stays, because the reference may have
    /// been removed before it was granted.
    pub(crate) fn end_leases(&self, digests: &[Digest], since: Duration) {
        let latest = since.saturating_add(self.grace);
        self.each(digests, |shard, digest| {
            if let Some(entry) = shard.entries.get_mut(digest)
                && entry.until <= latest
            {
                entry.until = Duration::ZERO;
                if entry.pins == 0 {
                    shard.entries.remove(digest);
                }
            }
        });
    }

    /// Protects `digests` from collection until the pin drops.
    pub(crate) fn pin(self: &Arc<Self>, digests: &[Digest]) -> Pin {
        self.each(digests, |shard, digest| {
            shard.entries.entry(*digest).or_default().pins += 1;
        });
        Pin {
            leases: Arc::clone(self),
            digests: digests.to_vec(),
        }
    }

    /// Returns whether a pin or an unexpired lease protects `digest`.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        let now = self.clock.monotonic();
        let shard = self.lock(self.index(digest));
        let held = |entry: &Entry| entry.pins > 0 || entry.until > now;
        shard.all_until > now || shard.entries.get(digest).is_some_and(held)
    }

    /// Removes expired leases and returns how many digests still have a pin or a lease of their own.
    pub(crate) fn expire(&self) -> usize {
        let now = self.clock.monotonic();
        let mut held = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.expire(now);
            held += shard.entries.len();
        }
        held
    }
}

impl Shard {
    fn expire(&mut self, now: Duration) {
        self.entries
            .retain(|_, entry| entry.pins > 0 || entry.until > now);
    }

    /// Makes room for a lease of `digest`. If the shard is full, all its leases become one that protects every digest.
    fn make_room(&mut self, digest: &Digest, now: Duration) {
        if self.entries.len() < LEASES_MAX || self.entries.contains_key(digest) {
            return;
        }
        self.expire(now);
        if self.entries.len() < LEASES_MAX {
            return;
        }
        let last = self.entries.values().map(|entry| entry.until).max();
        self.all_until = self.all_until.max(last.unwrap_or_default());
        self.entries.retain(|_, entry| {
            entry.until = Duration::ZERO;
            entry.pins > 0
        });
    }
}

/// Protects digests from collection until it drops.
#[derive(Debug)]
pub struct Pin {
    leases: Arc<Leases>,
    digests: Vec<Digest>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let now = self.leases.clock.monotonic();
        self.leases.each(&self.digests, |shard, digest| {
            if let Some(entry) = shard.entries.get_mut(digest) {
                assert!(entry.pins > 0, "a pin on {digest} was dropped twice");
                entry.pins -= 1;
                if entry.pins == 0 && entry.until <= now {
                    shard.entries.remove(digest);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::io::TaskFuture;

    #[derive(Debug, Default)]
    struct HandClock(Mutex<Duration>);

    fn leases(grace: Duration) -> (Arc<HandClock>, Arc<Leases>) {
        let clock = Arc::new(HandClock::default());
        let as_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        (clock, Leases::new(as_clock, grace))
    }

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
        let (clock, leases) = leases(Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        assert!(!leases.holds(&digest));
        leases.grant(digest);
        let pin = leases.pin(&[digest, digest]);
        *clock.0.lock() += Duration::from_secs(61);
        assert!(leases.holds(&digest), "the pin outlives the lease");
        assert_eq!(leases.expire(), 1);
        drop(pin);
        assert!(!leases.holds(&digest));
        assert_eq!(leases.expire(), 0);
    }

    /// Guards: a lease ends when a manifest references its digest, and the pins of others stay.
    #[test]
    fn a_reference_ends_the_lease() {
        let (_, leases) = leases(Duration::from_mins(1));
        let digests = [b"a", b"b"].map(|content| Digest::of(Algorithm::Sha256, content));
        leases.grant(digests[0]);
        leases.grant(digests[1]);
        let pin = leases.pin(&digests[1..]);
        leases.end_leases(&digests, leases.now());
        assert!(!leases.holds(&digests[0]) && leases.holds(&digests[1]));
        drop(pin);
        assert_eq!(leases.expire(), 0, "memory was left behind");
    }

    /// Guards: a lease granted after the commit is not ended by it, because the reference may be gone by then.
    #[test]
    fn a_later_lease_outlives_an_earlier_reference() {
        let (clock, leases) = leases(Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let committed = leases.now();
        *clock.0.lock() += Duration::from_millis(1);
        leases.grant(digest);
        leases.end_leases(&[digest], committed);
        assert!(leases.holds(&digest));
    }

    /// Guards: more leases than there is room for protect every digest for their time, and no pin is lost.
    #[test]
    fn leases_beyond_the_bound_hold_everything() {
        let (clock, leases) = leases(Duration::from_mins(1));
        let digest = |number: usize| {
            let raw = [number.to_le_bytes(); 4].concat();
            Digest::new(Algorithm::Sha256, &raw).unwrap()
        };
        let pinned = digest(usize::MAX);
        let pin = leases.pin(&[pinned]);
        let count = SHARDS * LEASES_MAX * 9 / 8;
        (0..count).for_each(|number| leases.grant(digest(number)));
        assert!(leases.expire() <= SHARDS * LEASES_MAX + 1);
        assert!((0..count).all(|number| leases.holds(&digest(number))));
        *clock.0.lock() += Duration::from_secs(61);
        assert!(!leases.holds(&digest(0)) && leases.holds(&pinned));
        drop(pin);
        assert_eq!(leases.expire(), 0, "memory was left behind");
    }
}
