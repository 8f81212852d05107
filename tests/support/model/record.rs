//! The record of what clients saw: when each call began, its answer, and when that came.
//!
//! Owns: [`Record`], the only information about a run, beside the disk, that checks use. Times are numbers of events,
//! so that "answered before the stop" is a comparison.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tonnage_engine::{Digest, UploadId};

use super::operation::Call;

/// A point of a run: the number of events before it.
pub type Moment = u64;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Committed: a transaction, durable at this LSN.
    Committed(u64),
    /// Done without a transaction.
    Done,
    /// Rejected because of the store's state; nothing changed.
    Refused(String),
    /// Failed; nothing of it was written.
    Failed(String),
    /// Failed, but may have happened after the next open.
    Unknown(String),
}

/// One call of one client.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The client.
    pub client: usize,
    /// The call, for messages.
    pub call: Call,
    /// Its transaction, if it is one.
    pub effect: Option<Call>,
    /// The time of its beginning.
    pub begun: Moment,
    /// The LSN that readers saw at the beginning.
    pub begun_lsn: u64,
    /// The time of its answer, and the answer.
    pub answered: Option<(Moment, Answer)>,
}

/// An upload whose id a client got.
#[derive(Debug, Clone)]
pub struct SentUpload {
    /// Its repository.
    pub repository: String,
    /// Its content when finished.
    pub whole: Bytes,
    /// Its content if the bytes in the middle were not rolled back.
    pub with_rolled_back: Option<Bytes>,
    /// The time at which the client was told of the rollback.
    pub rolled_back: Option<Moment>,
    /// The digest of `whole`.
    pub digest: Digest,
    /// The number of received bytes while no request has the upload; it survives a clean stop with these.
    pub kept_idle: Option<u64>,
}

/// What clients saw in one life of a store.
#[derive(Debug, Default)]
pub struct Record {
    now: Moment,
    /// The calls, in the order in which they began.
    pub entries: Vec<Entry>,
    /// Uploads whose id a client got.
    pub uploads: BTreeMap<UploadId, SentUpload>,
    /// A violation before any stop: a wrong byte, a lost lease.
    pub violations: Vec<(&'static str, String)>,
    /// On a disk without faults, the number of uploads that can begin before one is evicted.
    pub places: Option<usize>,
    /// Digests, with the time until which the lease of an answer protects them.
    pub leases: BTreeMap<Digest, std::time::Duration>,
    /// The same for manifests of repositories, which a later answer keeps in some other way.
    pub manifests: BTreeMap<(String, Digest), std::time::Duration>,
}

/// A record that several clients write. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shared(pub Arc<Mutex<Record>>);

impl Shared {
    /// Counts the next event.
    pub fn tick(&self) -> Moment {
        let mut record = self.0.lock();
        record.now += 1;
        record.now
    }

    /// Returns the number of events so far.
    pub fn now(&self) -> Moment {
        self.0.lock().now
    }

    /// Records the beginning of a call. Returns its place.
    pub fn begin(&self, client: usize, call: &Call, lsn: u64) -> usize {
        let begun = self.tick();
        let mut record = self.0.lock();
        record.entries.push(Entry {
            client,
            call: call.clone(),
            effect: None,
            begun,
            begun_lsn: lsn,
            answered: None,
        });
        record.entries.len() - 1
    }

    /// Records that the call at `place` may become this transaction from now on.
    pub fn intends(&self, place: usize, effect: Call) {
        self.0.lock().entries[place].effect = Some(effect);
    }

    /// Records the answer to the call at `place`.
    pub fn answer(&self, place: usize, answer: Answer) {
        let now = self.tick();
        self.0.lock().entries[place].answered = Some((now, answer));
    }

    /// Returns whether an unused upload may have been evicted, or the beginning of one rejected.
    pub fn may_evict(&self) -> bool {
        self.0.lock().places.is_none_or(|places| places == 0)
    }

    /// Records a violation that no stop caused.
    pub fn add_violation(&self, check: &'static str, what: String) {
        self.0.lock().violations.push((check, what));
    }
}

impl Record {
    /// Returns the answer of `entry` if it came before `moment`.
    pub fn answered_before(entry: &Entry, moment: Moment) -> Option<&Answer> {
        entry
            .answered
            .as_ref()
            .filter(|(when, _)| *when <= moment)
            .map(|(_, answer)| answer)
    }
}
