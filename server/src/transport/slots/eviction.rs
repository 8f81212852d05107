//! The choice of connections that are evicted for one that waits.
//!
//! Owns: [`plan_evictions`], a pure function. It prefers, in this order:
//! 1. Idle connections, the longest idle first. A new one has [`GRACE`] for its first request. Those that came later
//!    and were idle for less time are not evicted before it.
//! 2. Silent connections: no byte has moved for [`SILENT_MIN`] while the server waits for the client. While the server
//!    works on a request, its client is not silent.
//! 3. For a connection that is entitled to a slot, connections of addresses with more than their share: silent ones
//!    sooner, and one after its request. Once [`GRACE`] has passed, one is closed: of the address with the most
//!    connections, the one that moved the fewest bytes in the last seconds.
//!
//! Refuses: closing them.
//!
//! Invariant: a connection on which bytes move, of an address within its share, is not chosen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::queue::NextWaiting;
use super::slot::{Eviction, GRACE, SlotState, microseconds};

/// Time without progress after which a connection with an active request may be closed for another.
pub(super) const SILENT_MIN: Duration = Duration::from_secs(10);
/// Time without progress after which a connection of an address with more than its share may be closed for one that is
/// entitled to a slot.
pub(super) const EXCESS_SILENT_MIN: Duration = Duration::from_secs(2);
/// Of idle connections, one in this many slots is evicted at a time.
const AT_A_TIME_PART: usize = 64;

/// Why a connection is evicted. The greatest class is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EvictionClass {
    /// Bytes move, but its address has more than its share.
    Excess,
    Silent {
        over_share: bool,
    },
    Idle {
        over_share: bool,
    },
}

/// The connection that waits, and what each address may have.
struct Demand<'a> {
    next: &'a NextWaiting,
    share: usize,
    held: &'a HashMap<IpAddr, usize>,
    now_us: u64,
}

/// Returns the connections to evict for `next`, and how. Returns none while another one is already ending.
pub(super) fn plan_evictions<'a>(
    slots: impl Iterator<Item = &'a SlotState> + Clone,
    held: &HashMap<IpAddr, usize>,
    max: usize,
    share: usize,
    next: &NextWaiting,
    now_us: u64,
) -> Vec<(&'a SlotState, Eviction)> {
    if slots.clone().any(SlotState::is_leaving) {
        return Vec::new();
    }
    let demand = Demand {
        next,
        share,
        held,
        now_us,
    };
    let mut ranked: Vec<(EvictionClass, u64, &SlotState)> = slots
        .clone()
        .filter_map(|slot| {
            let (class, since_us) = demand.class(slot)?;
            Some((class, now_us.saturating_sub(since_us), slot))
        })
        .collect();
    ranked.sort_unstable_by_key(|(class, age_us, _)| (*class, *age_us));
    let (idle, others): (Vec<_>, Vec<_>) = ranked
        .into_iter()
        .rev()
        .partition(|(class, ..)| matches!(class, EvictionClass::Idle { .. }));
    let mut new_us = None;
    let leaving = idle.into_iter().filter(|(_, age_us, slot)| {
        if slot.is_new() && *age_us < microseconds(GRACE) {
            new_us = new_us.max(Some(*age_us));
        }
        // Connections that came after a new one and were idle for less time stay too.
        new_us.is_none_or(|new_us| *age_us > new_us)
    });
    // Several at a time, so that many new clients do not wait for single evictions.
    let leaving = leaving.take((max / AT_A_TIME_PART).max(1));
    let leaving: Vec<_> = leaving
        .map(|(_, _, slot)| (slot, Eviction::WhenIdle))
        .collect();
    let may_cut = next.is_entitled && next.waited_us >= microseconds(GRACE);
    // The slot of a new connection may be free within GRACE.
    if !leaving.is_empty() || (new_us.is_some() && !may_cut) {
        return leaving;
    }
    let silent = others
        .iter()
        .find(|(class, ..)| *class > EvictionClass::Excess);
    if let Some((_, _, slot)) = silent {
        return vec![(slot, Eviction::Now)];
    }
    if may_cut {
        let least = demand.slowest_over_share(slots);
        return least
            .map(|slot| (slot, Eviction::Now))
            .into_iter()
            .collect();
    }
    // One slot is enough for one waiting connection.
    let is_evicted = others.iter().any(|(.., slot)| slot.is_evicted());
    let next = others.first().filter(|_| !is_evicted);
    next.map(|(.., slot)| (*slot, Eviction::WhenIdle))
        .into_iter()
        .collect()
}

impl Demand<'_> {
    fn held(&self, peer: IpAddr) -> usize {
        self.held.get(&peer).copied().unwrap_or_default()
    }

    /// Returns why `slot` may be evicted, and since when.
    fn class(&self, slot: &SlotState) -> Option<(EvictionClass, u64)> {
        let over_share = self.held(slot.peer) > self.share;
        let (idle_us, progress_us) = (
            slot.idle_since_us.load(Ordering::Relaxed),
            slot.progress_us.load(Ordering::Relaxed),
        );
        if slot.is_idle() {
            return Some((EvictionClass::Idle { over_share }, idle_us));
        }
        let is_excess = over_share && self.next.is_entitled;
        let silent_min = if is_excess {
            EXCESS_SILENT_MIN
        } else {
            SILENT_MIN
        };
        let silent_us = self.now_us.saturating_sub(progress_us);
        // A connection of an address at its share does not end requests of addresses within theirs.
        let may_end = over_share || self.next.is_entitled || slot.peer == self.next.peer;
        if may_end && !slot.is_working() && silent_us >= microseconds(silent_min) {
            return Some((EvictionClass::Silent { over_share }, progress_us));
        }
        is_excess.then_some((EvictionClass::Excess, progress_us))
    }

    /// Returns, of the address with the most connections, the one that moved the fewest bytes in the last seconds; of
    /// several such, the one without progress for the longest time. Those that the server works on come last.
    fn slowest_over_share<'a>(
        &self,
        slots: impl Iterator<Item = &'a SlotState>,
    ) -> Option<&'a SlotState> {
        let excess = slots.filter(|slot| self.held(slot.peer) > self.share);
        excess.min_by_key(|slot| {
            let most = usize::MAX - self.held(slot.peer);
            let bytes = slot.recent.bytes(self.now_us);
            let progress_us = slot.progress_us.load(Ordering::Relaxed);
            (most, slot.is_working(), bytes, progress_us)
        })
    }
}
