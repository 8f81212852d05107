//! Tests of the sequencer and the resolver without a disk: what a frame's outcome means for readers and committers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::prevalidate::Prevalidated;
use super::sequencer::Sequencer;
use crate::catalog::repository_purge::RepositoryPurge;
use crate::catalog::{Repository, View};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::extent::{Extent, Layout, Lsn, SegmentId, VolumeId};
use crate::finished_blob::{Committed, FinishedBlob};
use crate::format::keys;
use crate::format::proof::Proof;
use crate::format::transaction::Operation;
use crate::io::{Clock, TaskFuture};
use crate::journal::Position;
use crate::lease::Leases;
use crate::limits::FRAME_TRANSACTIONS_MAX;
use crate::poison::Poison;
use crate::segment::DamageMark;
use crate::state::State;
use crate::sync::oneshot;
use crate::vocabulary::{Batch, Change, ManifestEntry, Origin, Require};

/// Returns what `read` finds in the repository `r`, or the default if there is none.
fn within<T: Default>(view: &View, read: impl FnOnce(Repository<'_>) -> Result<T>) -> T {
    let found = view.repository("r").unwrap();
    found.map(|of| read(of).unwrap()).unwrap_or_default()
}

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn wall_unix_ms(&self) -> u64 {
        1
    }
    fn sleep(&self, _: Duration) -> TaskFuture {
        Box::pin(std::future::pending())
    }
}

struct Rig {
    sequencer: Sequencer,
    poison: Arc<Poison>,
    leases: Arc<Leases>,
    offset: u64,
}

type Waiting = oneshot::Receiver<Result<Committed>>;

impl Rig {
    fn new() -> Self {
        let state = State::empty([5; 16]);
        let poison = Arc::new(Poison::default());
        let clock: Arc<dyn Clock> = Arc::new(StoppedClock);
        let position = Position {
            number: 1,
            offset: 4096,
        };
        let sequencer = Sequencer::new(
            state,
            position,
            Lsn(1),
            Arc::clone(&clock),
            Arc::clone(&poison),
        );
        let leases = Leases::new(clock, Duration::ZERO, Arc::clone(&poison));
        Self {
            sequencer,
            poison,
            leases,
            offset: 4096,
        }
    }

    fn blob(&mut self, content: &[u8]) -> FinishedBlob {
        let digest = digest(content);
        let length = content.len() as u64;
        let extent = Extent {
            volume: VolumeId(0),
            segment: SegmentId(1),
            offset: self.offset,
            length,
            layout: Layout::Leading,
        };
        self.offset += 4096;
        FinishedBlob {
            digest,
            length,
            extent,
            abandon: None,
            in_use: None,
            pin: self
                .leases
                .pin(&[digest])
                .now_or_never()
                .expect("nothing is condemned")
                .expect("not poisoned"),
            listener: None,
        }
    }

    fn submit(&self, requires: Vec<Require>, changes: Vec<Change>) -> Result<Waiting> {
        self.submit_prevalidated(requires, None, changes)
    }

    fn submit_prevalidated(
        &self,
        requires: Vec<Require>,
        mut prevalidated: Option<Prevalidated>,
        changes: Vec<Change>,
    ) -> Result<Waiting> {
        self.sequencer.submit(
            &mut batch(requires, vec![], changes),
            &mut prevalidated,
            &|_, _| false,
        )
    }

    fn submit_staged(
        &self,
        requires: Vec<Require>,
        blob: FinishedBlob,
        changes: Vec<Change>,
    ) -> Result<Waiting> {
        self.sequencer.submit(
            &mut batch(requires, vec![blob], changes),
            &mut None,
            &|_, _| false,
        )
    }

    /// Returns `requires` as if they had been checked now and held.
    fn prevalidated(&self, requires: Vec<Require>) -> Prevalidated {
        let (_, removals) = self.sequencer.head();
        Prevalidated {
            removals,
            requires,
            unmet: Vec::new(),
        }
    }

    fn push_blob(&mut self, content: &[u8]) -> Waiting {
        let blob = self.blob(content);
        let digest = blob.digest();
        self.submit_staged(vec![], blob, vec![Change::Link(digest)])
            .unwrap()
    }

    /// Completes the next frame successfully, as the journal task does.
    fn write_frame(&self) -> u32 {
        let group = self.sequencer.next_group().now_or_never().unwrap().unwrap();
        self.sequencer.publish(Position {
            number: 1,
            offset: 8192,
        });
        group.transactions
    }

    fn view(&self) -> View {
        View::new(self.sequencer.durable())
    }
}

fn batch(
    requires: Vec<Require>,
    staged: Vec<FinishedBlob>,
    changes: Vec<Change>,
) -> Batch<FinishedBlob> {
    Batch {
        repository: "r".into(),
        create_repository: true,
        origin: Origin::default(),
        requires,
        staged,
        changes,
    }
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

fn manifest(content: &[u8], children: &[&[u8]]) -> ManifestEntry {
    ManifestEntry {
        digest: digest(content),
        size: content.len() as u64,
        children: children.iter().map(|child| digest(child)).collect(),
        subject: None,
        attributes: Bytes::new(),
    }
}

fn tag(name: &str, content: &[u8]) -> Change {
    Change::SetTag {
        tag: name.into(),
        digest: digest(content),
    }
}

fn outcome(waiting: Waiting) -> Option<Result<Committed>> {
    waiting.now_or_never().map(|received| received.unwrap())
}

/// Guards: readers see nothing of a transaction before its frame is durable, and committers are not answered.
#[test]
fn nothing_is_visible_or_answered_before_it_is_durable() {
    let mut rig = Rig::new();
    let mut waiting = rig.push_blob(b"layer");
    assert!(!within(&rig.view(), |of| of.is_linked(&digest(b"layer"))));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(rig.write_frame(), 1);
    assert!(within(&rig.view(), |of| of.is_linked(&digest(b"layer"))));
    assert_eq!(outcome(waiting).unwrap().unwrap().lsn, Lsn(1));
}

/// Guards: preconditions are checked against what is queued, so of two compare-and-set of one tag only one succeeds.
#[test]
fn preconditions_see_queued_transactions() {
    let mut rig = Rig::new();
    let (first, second) = (rig.blob(b"m1"), rig.blob(b"m2"));
    let absent = || {
        vec![Require::Tag {
            tag: "t".into(),
            digest: None,
        }]
    };
    let put = |blob, content: &[u8]| {
        let entry = Change::PutManifest(manifest(content, &[]));
        let changes = vec![entry, tag("t", content)];
        rig.submit_staged(absent(), blob, changes).unwrap()
    };
    let won = put(first, b"m1");
    let lost = put(second, b"m2");
    rig.write_frame();
    assert!(outcome(won).unwrap().is_ok());
    assert!(matches!(outcome(lost), Some(Err(Error::Unmet(unmet))) if unmet == absent()));
    assert_eq!(
        within(&rig.view(), |of| of.tag("t")).unwrap().digest,
        digest(b"m1")
    );
}

/// Guards: no batch is rejected for a reason that no reader sees yet. The rejection waits for the last transaction that
/// it was checked against, in flight or queued, and becomes an error if that fails.
#[test]
fn a_rejection_waits_until_its_reason_is_durable() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"m"));
    rig.write_frame();
    let gone = || vec![Change::Unlink(digest(b"m"))];
    let linked = || vec![Require::Linked(digest(b"m"))];
    drop(rig.submit(linked(), gone()).unwrap());
    let group = rig.sequencer.next_group().now_or_never().unwrap().unwrap();
    assert_eq!(group.transactions, 1);
    let mut first = rig.submit(linked(), gone()).unwrap();
    drop(rig.push_blob(b"another"));
    let mut second = rig.submit(linked(), gone()).unwrap();
    assert!(within(&rig.view(), |of| of.is_linked(&digest(b"m"))));
    assert!((&mut first).now_or_never().is_none());
    rig.sequencer.publish(Position {
        number: 1,
        offset: 8192,
    });
    assert!(matches!(outcome(first), Some(Err(Error::Unmet(_)))));
    assert!((&mut second).now_or_never().is_none());
    rig.write_frame();
    assert!(matches!(outcome(second), Some(Err(Error::Unmet(_)))));
    // Nothing is queued: nothing to wait for.
    assert!(matches!(rig.submit(linked(), gone()), Err(Error::Unmet(_))));

    drop(rig.push_blob(b"m"));
    let absent = vec![Require::Linked(digest(b"nowhere"))];
    let refused = rig.submit(absent, gone()).unwrap();
    rig.sequencer.fail_queued(&Error::Closed, false);
    assert!(matches!(outcome(refused), Some(Err(Error::Closed))));
}

/// Guards: a batch cannot link, tag or enter what the store does not have, and then changes nothing at all.
#[test]
fn a_batch_with_something_missing_changes_nothing() {
    let mut rig = Rig::new();
    let blob = rig.blob(b"m");
    let changes = vec![
        Change::Link(digest(b"nowhere")),
        Change::PutManifest(manifest(b"m", &[b"x"])),
        tag("t", b"other"),
        Change::DeleteTag("gone".into()),
    ];
    let requires = vec![Require::Linked(digest(b"x"))];
    let unmet = match rig.submit_staged(requires, blob, changes) {
        Err(Error::Unmet(unmet)) => unmet,
        other => panic!("{other:?}"),
    };
    let expected = [
        Require::Linked(digest(b"x")),
        Require::Stored(digest(b"nowhere")),
        Require::Manifest(digest(b"other")),
        Require::TagExists("gone".into()),
    ];
    assert_eq!(unmet, expected);
    assert!(rig.sequencer.next_group().now_or_never().is_none());
}

/// Guards: deleting a manifest removes its tags and edges, those of queued transactions included.
#[test]
fn deleting_a_manifest_removes_its_tags_and_edges() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"layer"));
    let blob = rig.blob(b"m");
    let changes = vec![
        Change::PutManifest(manifest(b"m", &[b"layer"])),
        tag("a", b"m"),
        tag("b", b"m"),
    ];
    drop(rig.submit_staged(vec![], blob, changes).unwrap());
    assert_eq!(rig.write_frame(), 2);
    assert!(rig.view().referenced(&digest(b"layer")).unwrap());
    drop(
        rig.submit(vec![], vec![Change::DeleteManifest(digest(b"m"))])
            .unwrap(),
    );
    rig.write_frame();
    let view = rig.view();
    assert_eq!(within(&view, |of| of.tags(None, 10)), []);
    assert!(within(&view, |of| of.manifest(&digest(b"m"))).is_none());
    assert!(!view.referenced(&digest(b"layer")).unwrap());
    assert!(
        within(&view, |of| of.is_linked(&digest(b"layer"))),
        "visibility is not an edge"
    );
}

/// Guards: after a failed frame the head is the durable state again, and every queued commit fails.
#[test]
fn a_failed_frame_fails_the_queue() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"kept"));
    rig.write_frame();
    let lost = rig.push_blob(b"lost");
    let group = rig.sequencer.next_group().now_or_never().unwrap().unwrap();
    assert_eq!(group.transactions, 1);
    let second = rig
        .submit(vec![], vec![Change::Link(digest(b"lost"))])
        .unwrap();
    rig.sequencer.fail_queued(&Error::Closed, false);
    assert!(matches!(outcome(lost), Some(Err(Error::Closed))));
    assert!(matches!(outcome(second), Some(Err(Error::Closed))));
    let again = rig.submit(vec![], vec![Change::Link(digest(b"lost"))]);
    assert!(
        matches!(again, Err(Error::Unmet(_))),
        "the lost blob is not stored"
    );
    assert!(within(&rig.view(), |of| of.is_linked(&digest(b"kept"))));
}

/// Guards: a manifest pushed again changes only its tags, and since when it is untagged: with tens of thousands of
/// edges, rewriting them would cost megabytes of journal and delay other commits. A manifest whose entry differs is
/// written.
#[test]
fn a_manifest_pushed_again_writes_no_entry() {
    let mut rig = Rig::new();
    let entry = ManifestEntry {
        digest: digest(b"m"),
        size: 1,
        children: vec![digest(b"b"), digest(b"a")],
        subject: None,
        attributes: Bytes::from_static(b"type"),
    };
    let blob = rig.blob(b"m");
    let tag = || Change::SetTag {
        tag: "t".into(),
        digest: digest(b"m"),
    };
    let changes = vec![Change::PutManifest(entry.clone()), tag()];
    drop(rig.submit_staged(vec![], blob, changes).unwrap());
    rig.write_frame();
    let view = rig.view();
    let operations = |changes: Vec<Change>| {
        super::resolve(&batch(vec![], vec![], changes), &view, 9, &|_, _| false)
            .unwrap()
            .len()
    };
    let again = || Change::PutManifest(entry.clone());
    assert_eq!(operations(vec![again()]), 0);
    assert_eq!(operations(vec![again(), tag()]), 1);
    assert_eq!(
        operations(vec![Change::DeleteManifest(entry.digest), again()]),
        3
    );
    let with = |change: fn(&mut ManifestEntry)| {
        let mut entry = entry.clone();
        change(&mut entry);
        operations(vec![Change::PutManifest(entry)])
    };
    assert_eq!(with(|entry| entry.children.reverse()), 0);
    assert_eq!(with(|entry| entry.children.truncate(1)), 1);
    assert_eq!(with(|entry| entry.children.push(digest(b"c"))), 1);
    assert_eq!(with(|entry| entry.subject = Some(digest(b"s"))), 1);
    assert_eq!(with(|entry| entry.attributes = Bytes::new()), 1);
    let changes = vec![Change::DeleteTag("t".into())];
    drop(rig.submit(vec![], changes).unwrap());
    rig.write_frame();
    let again = batch(vec![], vec![], vec![again()]);
    let operations = super::resolve(&again, &rig.view(), 9, &|_, _| false).unwrap();
    assert!(matches!(
        operations[..],
        [Operation::SuspectManifest { .. }]
    ));
}

/// Guards: the purge of a large manifest makes its referrers followers, also one that loses its tag meanwhile. It
/// passes over those that were pushed, or pushed again, after the deletion, with a tag or without, also if it starts
/// again.
#[test]
fn a_purge_passes_over_later_referrers() {
    let mut rig = Rig::new();
    let put = |rig: &mut Rig, name: &[u8], children: Vec<Digest>, tag: Option<&str>| {
        let subject = (name != b"subject").then(|| digest(b"subject"));
        let entry = ManifestEntry {
            digest: digest(name),
            size: 1,
            children,
            subject,
            attributes: Bytes::new(),
        };
        let mut changes = vec![Change::PutManifest(entry)];
        changes.extend(tag.map(|tag| Change::SetTag {
            tag: tag.to_owned(),
            digest: digest(name),
        }));
        let blob = rig.blob(name);
        drop(rig.submit_staged(vec![], blob, changes).unwrap());
        rig.write_frame();
    };
    let children = (0..2000_u32).map(|number| digest(&number.to_le_bytes()));
    put(&mut rig, b"subject", children.collect(), None);
    put(&mut rig, b"earlier", vec![], None);
    put(&mut rig, b"untagged later", vec![], Some("a"));
    put(&mut rig, b"again", vec![], None);
    put(&mut rig, b"again, tagged", vec![], Some("b"));
    let delete = Change::DeleteManifest(digest(b"subject"));
    drop(rig.submit(vec![], vec![delete]).unwrap());
    rig.write_frame();
    let untag = Change::DeleteTag("a".into());
    drop(rig.submit(vec![], vec![untag]).unwrap());
    rig.write_frame();
    put(&mut rig, b"again", vec![], None);
    put(&mut rig, b"again, tagged", vec![], None);
    put(&mut rig, b"later", vec![], None);
    put(&mut rig, b"later, tagged", vec![], Some("c"));
    for _starts in 0..2 {
        let mut purge = rig.view().next_retired().unwrap().unwrap();
        let step = rig.sequencer.purge_manifest(&mut purge).unwrap();
        assert!(step.is_some_and(|step| step.waiting.is_some() && !step.last));
        rig.write_frame();
        let view = rig.view();
        let follows = |name: &[u8]| within(&view, |of| of.is_follower(&digest(name)));
        assert!(follows(b"earlier") && follows(b"untagged later"));
        for name in [&b"again"[..], b"again, tagged", b"later", b"later, tagged"] {
            assert!(!follows(name), "{}", String::from_utf8_lossy(name));
        }
    }
    put(&mut rig, b"earlier", vec![], None);
    let mut purge = rig.view().next_retired().unwrap().unwrap();
    drop(rig.sequencer.purge_manifest(&mut purge).unwrap());
    rig.write_frame();
    let follows = within(&rig.view(), |of| of.is_follower(&digest(b"earlier")));
    assert!(!follows, "a push ended it, and the purge started again");
}

/// Guards: prevalidated preconditions are not checked again while nothing is removed, and are checked again after a
/// removal, even one that never became durable. So a large manifest neither delays other commits nor names what is
/// gone.
#[test]
fn prevalidation_holds_until_something_is_removed() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"there"));
    let linked = |content: &[u8]| vec![Require::Linked(digest(content))];
    let link = || vec![Change::Link(digest(b"there"))];
    let made_up = rig.prevalidated(linked(b"nowhere"));
    drop(rig.push_blob(b"more"));
    let taken = rig.submit_prevalidated(vec![], Some(made_up), link());
    assert!(taken.is_ok(), "additions end nothing");

    let prevalidated = rig.prevalidated(linked(b"there"));
    let unlink = Change::Unlink(digest(b"more"));
    drop(rig.submit(vec![], vec![unlink]).unwrap());
    let still = rig.submit_prevalidated(vec![], Some(prevalidated), link());
    assert!(still.is_ok(), "another one was removed");

    let prevalidated = rig.prevalidated(linked(b"there"));
    let unlink = Change::Unlink(digest(b"there"));
    drop(rig.submit(vec![], vec![unlink]).unwrap());
    let gone = rig
        .submit_prevalidated(vec![], Some(prevalidated), link())
        .unwrap();
    rig.write_frame();
    assert!(matches!(outcome(gone), Some(Err(Error::Unmet(unmet))) if unmet == linked(b"there")));

    drop(rig.push_blob(b"lost"));
    let prevalidated = rig.prevalidated(linked(b"lost"));
    rig.sequencer.fail_queued(&Error::Closed, false);
    let lost = rig.submit_prevalidated(vec![], Some(prevalidated), vec![]);
    assert!(
        matches!(lost, Err(Error::Unmet(unmet)) if unmet.contains(&Require::Linked(digest(b"lost"))))
    );
}

/// Guards: a prevalidated precondition that does not hold is answered once its reason is durable, because a crash may
/// undo the removal. If the removal fails, the batch is not rejected.
#[test]
fn a_prevalidated_rejection_waits_until_its_reason_is_durable() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"kept"));
    rig.write_frame();
    let unlink = || vec![Change::Unlink(digest(b"kept"))];
    let gone = vec![Require::Linked(digest(b"kept"))];
    drop(rig.submit(vec![], unlink()).unwrap());
    let prevalidated = Prevalidated {
        unmet: gone.clone(),
        ..rig.prevalidated(vec![])
    };
    let mut refused = rig
        .submit_prevalidated(vec![], Some(prevalidated), vec![])
        .unwrap();
    assert!(
        (&mut refused).now_or_never().is_none(),
        "answered too early"
    );
    rig.write_frame();
    assert!(matches!(outcome(refused), Some(Err(Error::Unmet(unmet))) if unmet == gone));

    drop(rig.push_blob(b"kept"));
    rig.write_frame();
    drop(rig.submit(vec![], unlink()).unwrap());
    let prevalidated = Prevalidated {
        unmet: gone,
        ..rig.prevalidated(vec![])
    };
    rig.sequencer.fail_queued(&Error::Closed, false);
    let taken = rig
        .submit_prevalidated(vec![], Some(prevalidated), vec![])
        .unwrap();
    rig.write_frame();
    assert!(matches!(outcome(taken), Some(Ok(_))), "it is there still");
}

/// Guards: a purge step is queued only after its deletion. If the deletion failed, the repository is in use, and none
/// of its rows may be removed.
#[test]
fn nothing_is_purged_after_a_deletion_that_failed() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"kept"));
    rig.write_frame();
    drop(rig.submit(vec![], vec![Change::DeleteRepository]).unwrap());
    let (view, _) = rig.sequencer.head();
    let repository = view.next_deleted().unwrap().expect("a deleted repository");
    let mut purge = RepositoryPurge::of(repository);
    let step = purge.step(&view).unwrap();
    assert!(!step.is_empty());
    rig.sequencer.fail_queued(&Error::Closed, false);
    let taken = rig.sequencer.purge_repository(repository, step).unwrap();
    assert!(taken.is_none(), "a step on a repository that is in use");
    drop(rig.push_blob(b"more"));
    rig.write_frame();
    assert!(within(&rig.view(), |of| of.is_linked(&digest(b"kept"))));

    drop(rig.submit(vec![], vec![Change::DeleteRepository]).unwrap());
    let (view, _) = rig.sequencer.head();
    let mut purge = RepositoryPurge::of(repository);
    let step = purge.step(&view).unwrap();
    assert!(
        rig.sequencer
            .purge_repository(repository, step)
            .unwrap()
            .is_some()
    );
}

/// Guards: a damage mark is dropped if its blob moved, and kept by its caller if the blob's row does not decode.
#[test]
fn a_row_that_does_not_decode_loses_no_damage_mark() {
    let mut rig = Rig::new();
    let blob = rig.blob(b"layer");
    let (digest, extent) = (blob.digest(), blob.extent());
    let link = vec![Change::Link(digest)];
    drop(rig.submit_staged(vec![], blob, link).unwrap());
    rig.write_frame();
    let mark = |extent| DamageMark {
        digest,
        extent,
        proof: Some(Proof::Read),
    };
    let elsewhere = Extent {
        offset: extent.offset + 4096,
        ..extent
    };
    let unneeded = rig.sequencer.record_damage(&[mark(elsewhere)]).unwrap();
    assert!(unneeded.is_none(), "the blob is not there");
    {
        let mut inner = rig.sequencer.inner.lock();
        let key = keys::blob(&inner.head.hash_key, &digest);
        let value = Some(Bytes::from_static(b"no slot"));
        inner.head.layers.put(key, value);
    }
    let refused = rig.sequencer.record_damage(&[mark(extent)]);
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
}

/// Guards: a mark of damage is replaced by one with a stronger proof, never by a weaker or an equal one, and any is
/// cleared by a read that proves enough.
#[test]
fn a_stronger_proof_replaces_a_mark() {
    let mut rig = Rig::new();
    let blob = rig.blob(b"layer");
    let (digest, extent) = (blob.digest(), blob.extent());
    let link = vec![Change::Link(digest)];
    drop(rig.submit_staged(vec![], blob, link).unwrap());
    rig.write_frame();
    let (read, drive, whole) = (Proof::Read, Proof::Drive, Proof::Digest);
    for (found, recorded) in [
        (Some(drive), Some(drive)),
        (Some(read), Some(drive)),
        (Some(drive), Some(drive)),
        (Some(whole), Some(whole)),
        (Some(drive), Some(whole)),
        (None, None),
        (None, None),
        (Some(read), Some(read)),
    ] {
        let before = recorded_proof(&rig, &digest);
        let mark = DamageMark {
            digest,
            extent,
            proof: found,
        };
        let queued = rig.sequencer.record_damage(&[mark]).unwrap();
        assert_eq!(queued.is_some(), before != recorded, "{found:?}");
        if queued.is_some() {
            rig.write_frame();
        }
        assert_eq!(recorded_proof(&rig, &digest), recorded, "{found:?}");
    }
}

/// Returns the proof of the mark on a blob.
fn recorded_proof(rig: &Rig, digest: &Digest) -> Option<Proof> {
    let (view, _) = rig.sequencer.head();
    view.damage(digest).unwrap().map(|place| place.proof)
}

/// Guards: a poisoned store takes no transactions and still answers reads.
#[test]
fn a_poisoned_store_reads_but_does_not_write() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"kept"));
    rig.write_frame();
    drop(rig.poison.set(Error::Closed));
    let refused = rig.submit(vec![], vec![Change::Link(digest(b"kept"))]);
    assert!(matches!(refused, Err(Error::Poisoned { .. })));
    assert!(within(&rig.view(), |of| of.is_linked(&digest(b"kept"))));
}

/// Guards: a freeze contains exactly the durable state. What was in flight or queued is applied on top of it, and is
/// neither lost nor published early, even if new runs are installed meanwhile.
#[test]
fn a_freeze_splits_at_the_durable_state() {
    let mut rig = Rig::new();
    drop(rig.push_blob(b"durable"));
    rig.write_frame();
    drop(rig.push_blob(b"in flight"));
    let group = rig.sequencer.next_group().now_or_never().unwrap().unwrap();
    assert_eq!(group.transactions, 1);
    drop(rig.push_blob(b"queued"));
    let frozen = rig.sequencer.freeze().unwrap().unwrap();
    assert_eq!(frozen.state.lsn, Lsn(1));
    assert!(rig.sequencer.freeze().unwrap().is_none(), "one at a time");
    let has = |content: &[u8]| within(&rig.view(), |of| of.is_linked(&digest(content)));
    assert!(has(b"durable") && !has(b"in flight"));
    rig.sequencer.publish(Position {
        number: 1,
        offset: 8192,
    });
    assert!(has(b"in flight") && !has(b"queued"));
    rig.write_frame();
    assert!(has(b"durable") && has(b"queued"));
    let rows = frozen.state.layers.frozen().unwrap().len();
    assert!(rows > 0 && frozen.state.layers.delta_bytes() == 0);
}

/// Guards: a frame that is full takes no more transactions. Readers see the state at its end, not what was queued after
/// it, even if a checkpoint froze the state between.
#[test]
fn a_full_frame_ends_before_the_next_transaction() {
    let rig = Rig::new();
    let last = 100 + FRAME_TRANSACTIONS_MAX as u64;
    for limit in 101..=last + 1 {
        drop(rig.sequencer.reserve_segments(SegmentId(limit)).unwrap());
    }
    rig.sequencer.freeze().unwrap().unwrap();
    assert_eq!(rig.write_frame() as usize, FRAME_TRANSACTIONS_MAX);
    assert_eq!(rig.sequencer.durable().segment_limit, SegmentId(last));
    assert_eq!(rig.write_frame(), 1);
    assert_eq!(rig.sequencer.durable().segment_limit, SegmentId(last + 1));
}
