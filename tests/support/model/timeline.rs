//! The check of what a stop left against DURABILITY.md.
//!
//! Owns: [`Timeline`]: the model after each transaction of one life, in the engine's order. Refuses: disks.
//!
//! Three conditions are checked. Every accepted transaction was allowed at its LSN, and every rejected one was
//! forbidden at some moment of its call. The recovered state is the model after exactly the transactions up to the
//! recovered LSN. That LSN is not below any that was answered, seen by a reader, or the reason of a rejection before
//! the stop.

use std::sync::Arc;

use tonnage_engine::Digest;

use super::operation::{Call, Operation};
use super::record::{Answer, Entry, Moment, Record};
use super::recover::{Found, Violation};
use super::state::Model;

/// The maximum number of calls with unknown outcome whose combinations are tried; there are never more than clients.
const UNKNOWN_MAX: usize = 5;

/// The model after each transaction of one life.
#[derive(Debug)]
pub struct Timeline<'a> {
    record: &'a Record,
    /// An LSN, and the model from there on; the first one is the state at the beginning of the life.
    states: Vec<(u64, Arc<Model>)>,
    /// Calls that failed half-way: each may have happened, after all that were answered.
    unknown: Vec<&'a Entry>,
    /// The time of each rejection, and the LSN of the transaction that was its reason.
    refused: Vec<(Moment, u64)>,
}

impl<'a> Timeline<'a> {
    /// Puts the calls of a life in order, and checks that the engine decided each as the model does. On a disk with
    /// faults (`faulty`) errors are answers too.
    pub fn new(
        base: &Model,
        base_lsn: u64,
        record: &'a Record,
        faulty: bool,
    ) -> Result<Self, Violation> {
        if let Some((check, what)) = record.violations.first() {
            return Err(Violation::new(check, what.clone()));
        }
        let mut committed: Vec<(u64, &Entry, &Call)> = Vec::new();
        let mut unknown = Vec::new();
        for entry in &record.entries {
            match (&entry.answered, &entry.effect) {
                (Some((_, Answer::Committed(lsn))), Some(effect)) => {
                    committed.push((*lsn, entry, effect));
                }
                (Some((_, Answer::Unknown(why) | Answer::Failed(why))), _) if !faulty => {
                    let what = format!("{:?} failed on a disk without faults: {why}", entry.call);
                    return Err(Violation::new("errors", what));
                }
                (Some((_, Answer::Unknown(_))) | None, Some(_)) => unknown.push(entry),
                _ => {}
            }
        }
        committed.sort_by_key(|(lsn, ..)| *lsn);
        let mut states = vec![(base_lsn, Arc::new(base.clone()))];
        let mut model = base.clone();
        for (lsn, entry, effect) in committed {
            if lsn <= entry.begun_lsn || states.last().is_some_and(|(last, _)| *last >= lsn) {
                let what = format!("{effect:?} has LSN {lsn}, which was taken");
                return Err(Violation::new("order", what));
            }
            model.apply(effect).map_err(|refused| {
                let what = format!("{effect:?} was accepted at LSN {lsn}: {}", refused.0);
                Violation::new("preconditions", what)
            })?;
            states.push((lsn, Arc::new(model.clone())));
        }
        let mut timeline = Self {
            record,
            states,
            unknown,
            refused: Vec::new(),
        };
        timeline.check_refused()?;
        Ok(timeline)
    }

    /// Checks that every rejected call had a reason at some moment between its beginning and its answer. The answer
    /// reveals that transaction to the client, so a stop must not undo it.
    fn check_refused(&mut self) -> Result<(), Violation> {
        if !self.unknown.is_empty() {
            return Ok(()); // a call that failed later may have been the reason
        }
        for entry in &self.record.entries {
            let (Some((when, Answer::Refused(why))), Some(effect)) =
                (&entry.answered, &entry.effect)
            else {
                continue;
            };
            let first = self
                .states
                .partition_point(|(lsn, _)| *lsn <= entry.begun_lsn);
            let newest = self.newest_begun(*when);
            let last = self.states.partition_point(|(lsn, _)| *lsn <= newest);
            let mut during = self.states[first.saturating_sub(1)..last.max(first)].iter();
            let refuses = |model: &Arc<Model>| (**model).clone().apply(effect).is_err();
            let Some((reason, _)) = during.find(|(_, model)| refuses(model)) else {
                let what = format!("{effect:?} was rejected ({why}) and was allowed all the time");
                return Err(Violation::new("refusals", what));
            };
            self.refused.push((*when, *reason));
        }
        Ok(())
    }

    /// Returns the highest LSN among calls that began before `moment`.
    fn newest_begun(&self, moment: Moment) -> u64 {
        let begun = self
            .record
            .entries
            .iter()
            .filter(|entry| entry.begun <= moment);
        let lsns = begun.filter_map(|entry| match &entry.answered {
            Some((_, Answer::Committed(lsn))) => Some(*lsn),
            _ => None,
        });
        lsns.max().unwrap_or_default()
    }

    /// Returns the least LSN that a stop at `moment` must have kept: every answered or seen one.
    fn promised(&self, moment: Moment) -> u64 {
        let begun = self
            .record
            .entries
            .iter()
            .filter(|entry| entry.begun <= moment);
        let lsns = begun.map(|entry| match Record::answered_before(entry, moment) {
            Some(Answer::Committed(lsn)) => *lsn.max(&entry.begun_lsn),
            _ => entry.begun_lsn,
        });
        let told = self.refused.iter().filter(|(when, _)| *when <= moment);
        let reasons = told.map(|(_, reason)| *reason);
        lsns.chain(reasons).max().unwrap_or_default()
    }

    /// Returns the model up to `lsn`.
    fn at(&self, lsn: u64) -> &Arc<Model> {
        let behind = self.states.partition_point(|(at, _)| *at <= lsn);
        &self.states[behind.saturating_sub(1)].1
    }

    /// Checks what a stop at `moment` left.
    pub fn check(&self, found: &Found, moment: Moment) -> Result<(), Violation> {
        let promised = self.promised(moment);
        if found.lsn < promised {
            let what = format!(
                "recovered to LSN {}, but {promised} was answered or seen",
                found.lsn
            );
            return Err(Violation::new("durability", what));
        }
        let expected = self.at(found.lsn);
        if found.model != **expected && !self.with_unknown(found, moment) {
            let what = format!(
                "at LSN {}:\n found    {:?}\n expected {expected:?}",
                found.lsn, found.model
            );
            return Err(Violation::new("names and blobs", what));
        }
        self.check_uploads(found, moment)
    }

    /// Checks that bytes which a client knows to be rolled back do not return.
    pub fn check_uploads(&self, found: &Found, moment: Moment) -> Result<(), Violation> {
        for (id, rolled_back) in &found.uploads {
            let sent = self.record.uploads.get(id);
            let told = sent.and_then(|sent| sent.rolled_back);
            if *rolled_back && told.is_some_and(|told| told <= moment) {
                let what = format!("{id} has bytes that were rolled back");
                return Err(Violation::new("uploads", what));
            }
        }
        Ok(())
    }

    /// Returns whether some of the calls with unknown outcome explain what was found.
    fn with_unknown(&self, found: &Found, moment: Moment) -> bool {
        let open: Vec<&Call> = self
            .unknown
            .iter()
            .filter(|entry| entry.begun <= moment)
            .filter_map(|entry| entry.effect.as_ref())
            .take(UNKNOWN_MAX)
            .collect();
        let (_, last) = &self.states[self.states.len() - 1];
        explains(last, &open, &found.model)
    }
}

/// Returns whether `model` with some of `calls`, in some order, equals `wanted`.
fn explains(model: &Model, calls: &[&Call], wanted: &Model) -> bool {
    if model == wanted {
        return true;
    }
    (0..calls.len()).any(|first| {
        let mut next = model.clone();
        let mut call = calls[first].clone();
        if let Operation::Collect(removed) = &mut call.operation {
            // What it was about to remove is not known.
            *removed = model.stored.difference(&wanted.stored).copied().collect();
        }
        if let Operation::CollectManifests(removed) = &mut call.operation {
            *removed = missing_manifests(model, wanted);
        }
        if next.apply(&call).is_err() {
            return false;
        }
        let mut rest = calls.to_vec();
        rest.remove(first);
        explains(&next, &rest, wanted)
    })
}

/// Returns the manifests of `model` that `wanted` lacks in the same repository.
fn missing_manifests(model: &Model, wanted: &Model) -> Vec<(String, Digest)> {
    let mut missing = Vec::new();
    for (name, repository) in &model.repositories {
        let Some(left) = wanted.repositories.get(name) else {
            continue;
        };
        let digests = repository.manifests.keys();
        let gone = digests.filter(|digest| !left.manifests.contains_key(*digest));
        missing.extend(gone.map(|digest| (name.clone(), *digest)));
    }
    missing
}
