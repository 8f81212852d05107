//! The choice of the connections that leave for one that waits.
//!
//! Owns: [`plan`]. Idle connections leave first, the one that has been idle the longest before the others; a new one has [`GRACE`] for
//! its first request, and those that come after it and have been idle for less time do not leave before it. Then those on which nothing
//! has moved for [`SILENT_MIN`] though their clients are awaited; where the server works on a request, its client is not silent. For one
//! that is entitled to a place, connections of addresses that have more than their share leave too: silent ones sooner, one after its
//! request, and once it has waited for [`GRACE`], one is cut of the address that has the most: the one that moved the fewest bytes lately.
//! Refuses: telling them.
//!
//! Invariant: a connection on which something moves, of an address that has no more than its share, is not chosen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::queue::Turn;
use super::slot::{GRACE, Leave, Place, microseconds};

/// A connection with a request on which nothing moves for so long may be cut for a new one.
pub(super) const SILENT_MIN: Duration = Duration::from_secs(10);
/// The same, for one of an address with more than its share and a new one that is entitled to a place.
pub(super) const EXCESS_SILENT_MIN: Duration = Duration::from_secs(2);
/// Of the idle connections, one in so many leaves at a time.
const AT_A_TIME_PART: usize = 64;

/// Why a connection leaves. The greatest leaves first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// Something moves, but its address has more than its share.
    Excess,
    Silent {
        over_share: bool,
    },
    Idle {
        over_share: bool,
    },
}

/// Who waits, and what each address may have.
struct Need<'a> {
    turn: &'a Turn,
    share: usize,
    held: &'a HashMap<IpAddr, usize>,
    now_us: u64,
}

/// The connections that are told to leave for `turn`, and how: none while another is leaving already.
pub(super) fn plan<'a>(
    places: impl Iterator<Item = &'a Place> + Clone,
    held: &HashMap<IpAddr, usize>,
    max: usize,
    share: usize,
    turn: &Turn,
    now_us: u64,
) -> Vec<(&'a Place, Leave)> {
    if places.clone().any(Place::is_leaving) {
        return Vec::new();
    }
    let need = Need {
        turn,
        share,
        held,
        now_us,
    };
    let mut ranked: Vec<(Claim, u64, &Place)> = places
        .clone()
        .filter_map(|place| {
            let (claim, since_us) = need.claim(place)?;
            Some((claim, now_us.saturating_sub(since_us), place))
        })
        .collect();
    ranked.sort_unstable_by_key(|(claim, age_us, _)| (*claim, *age_us));
    let (idle, others): (Vec<_>, Vec<_>) = ranked
        .into_iter()
        .rev()
        .partition(|(claim, ..)| matches!(claim, Claim::Idle { .. }));
    let mut new_us = None;
    let leaving = idle.into_iter().filter(|(_, age_us, place)| {
        if place.is_fresh() && *age_us < microseconds(GRACE) {
            new_us = new_us.max(Some(*age_us));
        }
        // Those that come after a new one and have been idle for less time leave no sooner.
        new_us.is_none_or(|new_us| *age_us > new_us)
    });
    // Several at a time, so that many clients at once do not wait for one after the other.
    let leaving = leaving.take((max / AT_A_TIME_PART).max(1));
    let leaving: Vec<_> = leaving
        .map(|(_, _, place)| (place, Leave::WhenIdle))
        .collect();
    let may_cut = turn.is_entitled && turn.waited_us >= microseconds(GRACE);
    // A place that a new one has may leave within GRACE.
    if !leaving.is_empty() || (new_us.is_some() && !may_cut) {
        return leaving;
    }
    let silent = others.iter().find(|(claim, ..)| *claim > Claim::Excess);
    if let Some((_, _, place)) = silent {
        return vec![(place, Leave::Now)];
    }
    if may_cut {
        let least = need.least_useful(places);
        return least.map(|place| (place, Leave::Now)).into_iter().collect();
    }
    // One that waits needs one place.
    let was_told = others.iter().any(|(.., place)| place.was_told());
    let next = others.first().filter(|_| !was_told);
    next.map(|(.., place)| (*place, Leave::WhenIdle))
        .into_iter()
        .collect()
}

impl Need<'_> {
    fn held(&self, peer: IpAddr) -> usize {
        self.held.get(&peer).copied().unwrap_or_default()
    }

    /// What makes `place` leave, and since when that is so.
    fn claim(&self, place: &Place) -> Option<(Claim, u64)> {
        let over_share = self.held(place.peer) > self.share;
        let (idle_us, moved_us) = (
            place.idle_since_us.load(Ordering::Relaxed),
            place.moved_us.load(Ordering::Relaxed),
        );
        if place.is_idle() {
            return Some((Claim::Idle { over_share }, idle_us));
        }
        let is_excess = over_share && self.turn.is_entitled;
        let silent_min = if is_excess {
            EXCESS_SILENT_MIN
        } else {
            SILENT_MIN
        };
        let silent_us = self.now_us.saturating_sub(moved_us);
        // One that has its share ends no requests of others that have no more than theirs.
        let may_end = over_share || self.turn.is_entitled || place.peer == self.turn.peer;
        if may_end && !place.is_worked_on() && silent_us >= microseconds(silent_min) {
            return Some((Claim::Silent { over_share }, moved_us));
        }
        is_excess.then_some((Claim::Excess, moved_us))
    }

    /// Of the address with the most connections the one that moved the fewest bytes lately, and where that is the same for several, on
    /// which nothing moved for the longest time. Those that the server works on come last.
    fn least_useful<'a>(&self, places: impl Iterator<Item = &'a Place>) -> Option<&'a Place> {
        let excess = places.filter(|place| self.held(place.peer) > self.share);
        excess.min_by_key(|place| {
            let most = usize::MAX - self.held(place.peer);
            let bytes = place.recent.bytes(self.now_us);
            let moved_us = place.moved_us.load(Ordering::Relaxed);
            (most, place.is_worked_on(), bytes, moved_us)
        })
    }
}
