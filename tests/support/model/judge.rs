//! Is what a stop left what DURABILITY.md promises?
//!
//! Owns: [`Timeline`]: the model after each transaction of one life, in the order that the engine gave them. Refuses: disks.
//!
//! What is demanded: every accepted transaction was allowed where its LSN puts it, every refused one was forbidden at some
//! moment of its call; what is recovered is the model after exactly the transactions up to the recovered LSN; that LSN is not
//! below any that was answered, seen by a reader, or the reason of a refusal, before the stop.

use std::sync::Arc;

use super::operation::Call;
use super::record::{Answer, Entry, Moment, Record};
use super::recover::{Found, Violation};
use super::state::Model;

/// More calls of unknown outcome than this are not told apart; there are never more than clients.
const UNKNOWN_MAX: usize = 5;

/// The model after each transaction of one life.
#[derive(Debug)]
pub struct Timeline<'a> {
    record: &'a Record,
    /// LSN, and the model from there on; the first is what the life began with.
    states: Vec<(u64, Arc<Model>)>,
    /// Calls that failed half-way: each may have happened, behind all that were answered.
    unknown: Vec<&'a Entry>,
    /// When a call was refused, and the LSN of the transaction that was the reason.
    refused: Vec<(Moment, u64)>,
}

impl<'a> Timeline<'a> {
    /// Puts the calls of a life in order, and checks that the engine judged each as the model does.
    /// Where the disk is not sound (`faulty`), errors are answers, too.
    pub fn new(
        base: &Model,
        base_lsn: u64,
        record: &'a Record,
        faulty: bool,
    ) -> Result<Self, Violation> {
        if let Some((check, what)) = record.complaints.first() {
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
                    let what = format!("{:?} failed on a sound disk: {why}", entry.call);
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

    /// Every call that was refused had a reason at some moment between its beginning and its answer. Being told of it, the client
    /// knows that transaction: a stop must not undo it.
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
                let what = format!("{effect:?} was refused ({why}) and was allowed all the time");
                return Err(Violation::new("refusals", what));
            };
            self.refused.push((*when, *reason));
        }
        Ok(())
    }

    /// The highest LSN among calls that began before `moment`.
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

    /// The least LSN that a stop at `moment` must have kept: all that was answered or seen.
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

    /// The model up to `lsn`.
    fn at(&self, lsn: u64) -> &Arc<Model> {
        let behind = self.states.partition_point(|(at, _)| *at <= lsn);
        &self.states[behind.saturating_sub(1)].1
    }

    /// Judges what a stop at `moment` left.
    pub fn judge(&self, found: &Found, moment: Moment) -> Result<(), Violation> {
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
        self.judge_uploads(found, moment)
    }

    /// Bytes that a client was told are taken back do not come back.
    pub fn judge_uploads(&self, found: &Found, moment: Moment) -> Result<(), Violation> {
        for (id, taken_back) in &found.uploads {
            let sent = self.record.uploads.get(id);
            let told = sent.and_then(|sent| sent.taken_back);
            if *taken_back && told.is_some_and(|told| told <= moment) {
                let what = format!("{id} has bytes that were taken back");
                return Err(Violation::new("uploads", what));
            }
        }
        Ok(())
    }

    /// Whether some of the calls of unknown outcome explain what was found.
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

/// Whether `model` with some of `calls`, in some order, is `wanted`.
fn explains(model: &Model, calls: &[&Call], wanted: &Model) -> bool {
    if model == wanted {
        return true;
    }
    (0..calls.len()).any(|first| {
        let mut next = model.clone();
        if next.apply(calls[first]).is_err() {
            return false;
        }
        let mut rest = calls.to_vec();
        rest.remove(first);
        explains(&next, &rest, wanted)
    })
}
