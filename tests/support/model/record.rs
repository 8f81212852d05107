//! What clients saw: which call began when, how it was answered and when.
//!
//! Owns: [`Record`], the only thing that a check knows of a run beside the disk. Times are numbers of events, so that "answered
//! before the stop" is a comparison.

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
    /// A transaction, durable at this LSN.
    Committed(u64),
    /// Done; no transaction.
    Done,
    /// Refused because of what the store holds; nothing changed.
    Refused(String),
    /// Failed; nothing of it was written.
    Failed(String),
    /// Failed, and may be there after the next open.
    Unknown(String),
}

/// One call of one client.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who.
    pub client: usize,
    /// What, for messages.
    pub call: Call,
    /// The transaction that it comes to, where it is one.
    pub effect: Option<Call>,
    /// When it began, and the LSN that readers saw then.
    pub begun: Moment,
    /// LSN seen at the beginning.
    pub begun_lsn: u64,
    /// When it was answered, and how.
    pub answered: Option<(Moment, Answer)>,
}

/// An upload that somebody was told of.
#[derive(Debug, Clone)]
pub struct SentUpload {
    /// Its repository.
    pub repository: String,
    /// What it is to become.
    pub whole: Bytes,
    /// What it is if the bytes in the middle were not taken back.
    pub with_taken_back: Option<Bytes>,
    /// When the client was told that they are.
    pub taken_back: Option<Moment>,
    /// The digest of `whole`.
    pub digest: Digest,
    /// Bytes of it that were received while nobody holds it: it survives a clean stop.
    pub at_rest: Option<u64>,
}

/// Everything that clients saw in one life of a store.
#[derive(Debug, Default)]
pub struct Record {
    now: Moment,
    /// Calls, in the order in which they began.
    pub entries: Vec<Entry>,
    /// Uploads whose id a client learnt.
    pub uploads: BTreeMap<UploadId, SentUpload>,
    /// What went wrong before any stop: a wrong byte, a lost lease.
    pub complaints: Vec<(&'static str, String)>,
    /// On a sound disk, how many uploads can begin before one has to give way.
    pub places: Option<usize>,
    /// Digests with the time until which an answer's lease holds them.
    pub leases: BTreeMap<Digest, std::time::Duration>,
}

/// A record that several clients write. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shared(pub Arc<Mutex<Record>>);

impl Shared {
    /// The next event.
    pub fn tick(&self) -> Moment {
        let mut record = self.0.lock();
        record.now += 1;
        record.now
    }

    /// How many events there were.
    pub fn now(&self) -> Moment {
        self.0.lock().now
    }

    /// A call begins; returns its place.
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

    /// From now on the call at `place` may become this transaction.
    pub fn intends(&self, place: usize, effect: Call) {
        self.0.lock().entries[place].effect = Some(effect);
    }

    /// The call at `place` was answered.
    pub fn answer(&self, place: usize, answer: Answer) {
        let now = self.tick();
        self.0.lock().entries[place].answered = Some((now, answer));
    }

    /// Whether an upload that no request holds may be gone, or one that begins be refused.
    pub fn may_give_way(&self) -> bool {
        self.0.lock().places.is_none_or(|places| places == 0)
    }

    /// Something is wrong already, without any stop.
    pub fn complain(&self, check: &'static str, what: String) {
        self.0.lock().complaints.push((check, what));
    }
}

impl Record {
    /// Whether `entry` was answered before `moment`.
    pub fn answered_before(entry: &Entry, moment: Moment) -> Option<&Answer> {
        entry
            .answered
            .as_ref()
            .filter(|(when, _)| *when <= moment)
            .map(|(_, answer)| answer)
    }
}
