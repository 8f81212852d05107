//! Leases: expiring pins on digests that nothing references yet (DESIGN D4).
//!
//! Owns: which digests must not be collected although nothing references them. An answer that promises existence
//! (upload finished, HEAD 200, conditional GET, mount 201) grants a lease; work in progress holds a [`Pin`]. Refuses:
//! to decide what is referenced. The caller grants a lease only for what nothing references, so that a million HEADs of
//! referenced blobs cost no memory. It ends the lease once a manifest references the digest.
//!
//! Invariants: sharded by keyed hash, because clients choose digests. Collection condemns a digest under the lock of
//! its shard, and only if nothing protects it; from then on leases and pins wait until the removal is over. No lock is
//! held across an I/O, and no two at once. Only [`Leases::end_leases`] shortens a lease, and never that of a manifest:
//! a reference keeps its bytes, not its place in a repository. Memory is bounded. The clock counts only time in which
//! this process ran.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::Result;
use crate::io::Clock;
use crate::poison::Poison;
use crate::sync::{Mutex, MutexGuard, Notify};

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
    poison: Arc<Poison>,
    /// Notified when a digest is no longer condemned, or the store was poisoned.
    settled: Notify,
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
    /// Whether the lease is that of a manifest, which no reference ends.
    of_manifest: bool,
    /// Whether collection is removing it. No lease is granted until that is over.
    condemned: bool,
}

impl Entry {
    fn is_idle(&self, now: Duration) -> bool {
        self.pins == 0 && !self.condemned && self.until <= now
    }
}

impl Leases {
    /// Creates an empty set of leases; each grant lasts `grace`.
    pub(crate) fn new(clock: Arc<dyn Clock>, grace: Duration, poison: Arc<Poison>) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            shards,
            hasher: std::hash::RandomState::new(),
            clock,
            grace,
            poison,
            settled: Notify::new(),
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

    /// Protects `digest` from collection for the grace period from now. While collection removes it, this waits. Then
    /// look the digest up again: it may be gone.
    ///
    /// # Errors
    /// If the store was poisoned during the removal: the next open may find it.
    pub(crate) async fn grant(&self, digest: Digest) -> Result<()> {
        self.grant_as(digest, false).await
    }

    /// Protects a manifest in the same way. No reference ends this lease.
    ///
    /// # Errors
    /// Those of [`Leases::grant`].
    pub(crate) async fn grant_manifest(&self, digest: Digest) -> Result<()> {
        self.grant_as(digest, true).await
    }

    async fn grant_as(&self, digest: Digest, of_manifest: bool) -> Result<()> {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.try_grant(digest, of_manifest) {
                return Ok(());
            }
            self.poison.check()?;
            settled.await;
        }
    }

    /// Grants a lease, unless collection is removing the digest.
    fn try_grant(&self, digest: Digest, of_manifest: bool) -> bool {
        let now = self.clock.monotonic();
        let until = now + self.grace;
        let mut shard = self.lock(self.index(&digest));
        shard.make_room(&digest, now);
        let entry = shard.entries.entry(digest).or_default();
        if !entry.condemned {
            entry.of_manifest = of_manifest || entry.of_manifest && entry.until > now;
            entry.until = entry.until.max(until);
        }
        !entry.condemned
    }

    /// Condemns `digest`, unless a pin or a lease protects it. Until the result drops, leases and pins wait.
    pub(crate) fn condemn(self: &Arc<Self>, digest: Digest) -> Option<Condemned> {
        let now = self.clock.monotonic();
        let mut shard = self.lock(self.index(&digest));
        if shard.holds(&digest, now) {
            return None;
        }
        let entry = shard.entries.entry(digest).or_default();
        if std::mem::replace(&mut entry.condemned, true) {
            return None;
        }
        drop(shard);
        Some(Condemned {
            leases: Arc::clone(self),
            digest,
        })
    }

    /// Returns the time by this clock, for [`Leases::end_leases`].
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Ends the leases of `digests` that were granted by `since`, except those of manifests. Manifests have referenced
    /// these digests since then, and their grace starts when the last reference is removed. A later lease stays,
    /// because the reference may have been removed before it was granted.
    pub(crate) fn end_leases(&self, digests: &[Digest], since: Duration) {
        let latest = since.saturating_add(self.grace);
        self.each(digests, |shard, digest| {
            if let Some(entry) = shard.entries.get_mut(digest)
                && entry.until <= latest
                && !entry.of_manifest
            {
                entry.until = Duration::ZERO;
                if entry.is_idle(Duration::ZERO) {
                    shard.entries.remove(digest);
                }
            }
        });
    }

    /// Protects `digests` from collection until the pin drops. While collection removes one of them, this waits: what
    /// is looked up after it returns stays.
    ///
    /// # Errors
    /// If the store was poisoned during the removal: the next open may find it.
    pub(crate) async fn pin(self: &Arc<Self>, digests: &[Digest]) -> Result<Pin> {
        let mut condemned = false;
        self.each(digests, |shard, digest| {
            let entry = shard.entries.entry(*digest).or_default();
            entry.pins += 1;
            condemned |= entry.condemned;
        });
        let pin = Pin {
            leases: Arc::clone(self),
            digests: digests.to_vec(),
        };
        while condemned {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            condemned = false;
            self.each(digests, |shard, digest| {
                condemned |= shard.entries.get(digest).is_some_and(|at| at.condemned);
            });
            if condemned {
                self.poison.check()?;
                settled.await;
            }
        }
        Ok(pin)
    }

    /// Returns whether a pin or an unexpired lease protects `digest`.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        let now = self.clock.monotonic();
        self.lock(self.index(digest)).holds(digest, now)
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
        self.entries.retain(|_, entry| !entry.is_idle(now));
    }

    fn holds(&self, digest: &Digest, now: Duration) -> bool {
        let held = |entry: &Entry| entry.pins > 0 || entry.until > now;
        self.all_until > now || self.entries.get(digest).is_some_and(held)
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
            !entry.is_idle(Duration::ZERO)
        });
    }
}

/// A digest that collection is removing. Drop it once the removal is durable, or has failed.
#[derive(Debug)]
pub(crate) struct Condemned {
    leases: Arc<Leases>,
    digest: Digest,
}

impl Condemned {
    /// Returns the digest.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Drop for Condemned {
    fn drop(&mut self) {
        let now = self.leases.clock.monotonic();
        let mut shard = self.leases.lock(self.leases.index(&self.digest));
        if let Some(entry) = shard.entries.get_mut(&self.digest) {
            assert!(entry.condemned, "{} was condemned twice", self.digest);
            // If the store was poisoned, the frame with the removal may be durable.
            entry.condemned = self.leases.poison.cause().is_some();
            if entry.is_idle(now) {
                shard.entries.remove(&self.digest);
            }
        }
        drop(shard);
        self.leases.settled.notify_waiters();
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
                if entry.is_idle(now) {
                    shard.entries.remove(digest);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::digest::Algorithm;
    use crate::error::Error;
    use crate::io::TaskFuture;

    #[derive(Debug, Default)]
    struct HandClock(Mutex<Duration>);

    fn leases(grace: Duration) -> (Arc<HandClock>, Arc<Leases>) {
        let clock = Arc::new(HandClock::default());
        let as_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        (clock, Leases::new(as_clock, grace, Arc::default()))
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

    fn pin(leases: &Arc<Leases>, digests: &[Digest]) -> Pin {
        let pin = leases.pin(digests).now_or_never();
        pin.expect("not condemned").expect("not poisoned")
    }

    fn grant(leases: &Leases, digest: Digest) {
        let granted = leases.grant(digest).now_or_never();
        granted.expect("not condemned").expect("not poisoned");
    }

    /// Guards: what is protected is not condemned, what is condemned gets no lease, and neither leaves memory behind.
    #[test]
    fn what_is_condemned_is_not_promised() {
        let (clock, leases) = leases(Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        grant(&leases, digest);
        assert!(leases.condemn(digest).is_none(), "it is leased");
        *clock.0.lock() += Duration::from_secs(61);
        let pin = pin(&leases, &[digest]);
        assert!(leases.condemn(digest).is_none(), "it is pinned");
        drop(pin);
        let condemned = leases.condemn(digest).expect("nothing protects it");
        assert!(leases.condemn(digest).is_none(), "it is condemned");
        let mut waiting = Box::pin(leases.grant(digest));
        assert!(waiting.as_mut().now_or_never().is_none());
        let held = [digest];
        let mut pinning = Box::pin(leases.pin(&held));
        assert!(pinning.as_mut().now_or_never().is_none());
        drop(condemned);
        assert!(waiting.now_or_never().is_some() && leases.holds(&digest));
        drop(pinning.now_or_never().expect("it is settled"));
        *clock.0.lock() += Duration::from_secs(61);
        drop(leases.condemn(digest).expect("its lease has ended"));
        assert_eq!(leases.expire(), 0, "memory was left behind");
    }

    /// Guards: if the store is poisoned during a removal, nobody is promised what the next open may not find.
    #[test]
    fn a_removal_of_a_poisoned_store_is_never_settled() {
        let (_, leases) = leases(Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let condemned = leases.condemn(digest).expect("nothing protects it");
        let mut waiting = Box::pin(leases.grant(digest));
        assert!(waiting.as_mut().now_or_never().is_none());
        leases.poison.set(Error::Closed);
        drop(condemned);
        assert!(waiting.now_or_never().expect("it ends").is_err());
        let held = [digest];
        let pinned = leases.pin(&held).now_or_never();
        assert!(pinned.expect("it ends").is_err());
    }

    /// Guards: a lease ends with its grace, a pin with its drop, and neither leaves memory behind.
    #[test]
    fn leases_end_with_grace_and_pins_with_drop() {
        let (clock, leases) = leases(Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        assert!(!leases.holds(&digest));
        grant(&leases, digest);
        let pin = pin(&leases, &[digest, digest]);
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
        grant(&leases, digests[0]);
        grant(&leases, digests[1]);
        let pin = pin(&leases, &digests[1..]);
        leases.end_leases(&digests, leases.now());
        assert!(!leases.holds(&digests[0]) && leases.holds(&digests[1]));
        drop(pin);
        assert_eq!(leases.expire(), 0, "memory was left behind");
    }

    /// Guards: a reference does not end the lease of a manifest, because that protects its place in a repository. Once
    /// it has expired, the next lease of the digest is an ordinary one.
    #[test]
    fn a_reference_does_not_end_the_lease_of_a_manifest() {
        let (clock, leases) = leases(Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let granted = leases.grant_manifest(digest).now_or_never();
        granted.expect("not condemned").expect("not poisoned");
        grant(&leases, digest);
        leases.end_leases(&[digest], leases.now());
        assert!(leases.holds(&digest));
        *clock.0.lock() += Duration::from_secs(61);
        assert!(!leases.holds(&digest));
        grant(&leases, digest);
        leases.end_leases(&[digest], leases.now());
        assert!(!leases.holds(&digest));
    }

    /// Guards: a lease granted after the commit is not ended by it, because the reference may be gone by then.
    #[test]
    fn a_later_lease_outlives_an_earlier_reference() {
        let (clock, leases) = leases(Duration::from_mins(1));
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let committed = leases.now();
        *clock.0.lock() += Duration::from_millis(1);
        grant(&leases, digest);
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
        let pin = pin(&leases, &[pinned]);
        let count = SHARDS * LEASES_MAX * 9 / 8;
        (0..count).for_each(|number| grant(&leases, digest(number)));
        assert!(leases.expire() <= SHARDS * LEASES_MAX + 1);
        assert!((0..count).all(|number| leases.holds(&digest(number))));
        *clock.0.lock() += Duration::from_secs(61);
        assert!(!leases.holds(&digest(0)) && leases.holds(&pinned));
        drop(pin);
        assert_eq!(leases.expire(), 0, "memory was left behind");
    }
}
