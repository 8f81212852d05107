//! Collection on the simulated machine, whose time passes at once: what nothing references goes when its grace is over,
//! and nothing else does.

use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::{
    Algorithm, Change, CollectionReport, CollectionRequest, Digest, FinishedBlob, ManifestEntry,
    Options, Store, UploadClaim, UploadSpec,
};
use tonnage_tests::batch_of;
use tonnage_tests::by_name::ByName as _;
use tonnage_tests::machine::Machine;
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use super::check;

pub const A: &str = "library/a";
const B: &str = "b";
const MINUTE: Duration = Duration::from_mins(1);
pub const GRACE: Duration = Duration::from_mins(10);

/// Returns options under which the store collects by itself.
pub fn automatic() -> Options {
    Options {
        collection_grace: GRACE,
        collection_manual: false,
        ..check::options()
    }
}

pub async fn open(machine: &Machine, options: Options) -> Store {
    let opened = Store::open(machine.env.clone(), &check::store_path(), options).await;
    opened.expect("the store opens").0
}

/// Runs `scene` on a new store. Its disk has nothing left that no row names.
pub fn on_a_store(options: &Options, scene: impl AsyncFnOnce(&Machine, &Store)) {
    let machine = Machine::new(1, &check::empty_disk());
    machine.executor.block_on(async {
        let store = open(&machine, options.clone()).await;
        scene(&machine, &store).await;
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    let report = check::fsck_image(1, &machine.disk.live_image()).expect("a sound store");
    assert!(report.clean && report.findings.is_empty(), "{report:?}");
}

pub async fn commit(store: &Store, name: &str, staged: Vec<FinishedBlob>, changes: Vec<Change>) {
    let batch = batch_of(name, staged, changes);
    store.commit(batch).await.expect("committed");
}

/// Pushes a content of 1000 bytes.
pub async fn push(store: &Store, name: &str, salt: u8) -> Digest {
    let content = Bytes::from(vec![salt; 1000]);
    let blob = store.put_small(content, Algorithm::Sha256).await;
    let blob = blob.expect("stored");
    let digest = blob.digest();
    commit(store, name, vec![blob], vec![Change::Link(digest)]).await;
    digest
}

/// Pushes a content that may get a segment of its own.
pub async fn upload(store: &Store, name: &str, content: Bytes) {
    let digest = Digest::of(Algorithm::Sha256, &content);
    let spec = UploadSpec {
        repository: name.to_owned(),
        ..UploadSpec::default()
    };
    let id = store.begin_upload(spec).expect("begun");
    let opened = store.open_upload(id, name, UploadClaim::default()).await;
    let mut upload = opened.expect("opened");
    upload.write(content).await.expect("written");
    let blob = upload.finish(digest, None).await.expect("finished");
    commit(store, name, vec![blob], vec![Change::Link(digest)]).await;
}

/// Puts a manifest over `children`.
pub async fn put(store: &Store, name: &str, salt: u8, children: &[Digest]) -> Digest {
    let text = Bytes::from(vec![salt; 200]);
    let blob = store.put_small(text, Algorithm::Sha256).await;
    let blob = blob.expect("stored");
    let digest = blob.digest();
    let entry = ManifestEntry {
        digest,
        size: 200,
        children: children.to_vec(),
        subject: None,
        attributes: Bytes::new(),
    };
    let change = Change::PutManifest(entry);
    commit(store, name, vec![blob], vec![change]).await;
    digest
}

pub async fn delete(store: &Store, name: &str, manifest: Digest) {
    let change = Change::DeleteManifest(manifest);
    commit(store, name, vec![], vec![change]).await;
}

pub async fn is_stored(store: &Store, digest: &Digest) -> bool {
    let found = store.view().read(|view| view.blob(digest)).await;
    found.expect("rows are readable").is_some()
}

async fn collect(store: &Store) -> CollectionReport {
    let request = CollectionRequest {
        list_max: 100,
        ..CollectionRequest::default()
    };
    store.collect(request).await.expect("collected")
}

async fn preview(store: &Store) -> CollectionReport {
    let request = CollectionRequest {
        dry_run: true,
        list_max: 100,
        ..CollectionRequest::default()
    };
    store.collect(request).await.expect("a dry run")
}

/// Guards: a blob that was pushed and never referenced goes after its grace, not before, with its link and its space,
/// and can be pushed again. The totals count it, and have the time since it was pushed.
#[test]
fn what_is_never_referenced_goes_after_its_grace() {
    on_a_store(&automatic(), async |machine, store| {
        let kept = push(store, A, 1).await;
        put(store, A, 2, &[kept]).await;
        machine.env.clock.sleep(MINUTE).await;
        let lost = push(store, A, 3).await;
        machine.env.clock.sleep(9 * MINUTE).await;
        assert!(is_stored(store, &lost).await, "it went too early");
        // It does not make the store believe that it looked.
        preview(store).await;
        machine.env.clock.sleep(2 * MINUTE).await;
        assert!(!is_stored(store, &lost).await, "it is still there");
        let linked = store.view().read(|view| view.linked(A, &lost)).await;
        assert!(!linked.expect("rows are readable"));
        assert!(is_stored(store, &kept).await);
        let totals = store.collection_totals();
        assert_eq!((totals.candidates, totals.blobs), (1, 1));
        let grace_ms = 10 * 60_000;
        assert!((grace_ms..grace_ms + 60_000).contains(&totals.lag_last_ms));
        assert_eq!(totals.lag_max_ms, totals.lag_last_ms);
        assert_eq!(push(store, A, 3).await, lost);
        let reader = store.open_blob(&lost).await.expect("readable");
        let bytes = reader.expect("stored").read_whole(1 << 20).await;
        assert_eq!(bytes.expect("intact"), vec![3; 1000]);
    });
}

/// Guards: grace starts when the last reference goes, in whatever repository; a deleted repository references nothing.
#[test]
fn grace_starts_with_the_last_reference() {
    on_a_store(&automatic(), async |machine, store| {
        let layer = push(store, A, 1).await;
        let first = put(store, A, 2, &[layer]).await;
        push(store, B, 1).await;
        put(store, B, 3, &[layer]).await;
        machine.env.clock.sleep(30 * MINUTE).await;
        delete(store, A, first).await;
        machine.env.clock.sleep(30 * MINUTE).await;
        assert!(is_stored(store, &layer).await, "another manifest lists it");
        assert!(!is_stored(store, &first).await, "its manifest is gone");
        commit(store, B, vec![], vec![Change::DeleteRepository]).await;
        machine.env.clock.sleep(9 * MINUTE).await;
        assert!(is_stored(store, &layer).await, "it went too early");
        machine.env.clock.sleep(2 * MINUTE).await;
        assert!(!is_stored(store, &layer).await, "it is still there");
        assert_eq!(store.stats().await.expect("counted").blobs, 0);
    });
}

/// Guards: a lease and a pin protect what nothing references, whatever its age, and a new reference saves it.
#[test]
fn what_is_promised_stays() {
    on_a_store(&automatic(), async |machine, store| {
        let [leased, pinned, saved] =
            [1, 2, 3].map(|salt| async move { push(store, A, salt).await });
        let (leased, pinned, saved) = (leased.await, pinned.await, saved.await);
        machine.env.clock.sleep(9 * MINUTE).await;
        store.lease(&leased).await.expect("leased");
        let pin = store.pin(&[pinned]).await.expect("pinned");
        put(store, A, 9, &[saved]).await;
        machine.env.clock.sleep(9 * MINUTE).await;
        assert!(is_stored(store, &leased).await, "it was promised");
        machine.env.clock.sleep(30 * MINUTE).await;
        assert!(!is_stored(store, &leased).await, "its lease has ended");
        assert!(is_stored(store, &pinned).await, "it is pinned");
        assert!(is_stored(store, &saved).await, "it is referenced");
        drop(pin);
        machine.env.clock.sleep(MINUTE).await;
        assert!(!is_stored(store, &pinned).await, "nothing holds it");
    });
}

/// Guards: a manifest that is linked as a blob, too, is referenced by its own entry.
#[test]
fn a_manifest_that_is_linked_stays() {
    on_a_store(&automatic(), async |machine, store| {
        let manifest = put(store, A, 2, &[]).await;
        commit(store, B, vec![], vec![Change::Link(manifest)]).await;
        machine.env.clock.sleep(3 * GRACE).await;
        assert!(is_stored(store, &manifest).await, "it is a manifest");
    });
}

/// Guards: a segment without a live blob stays while bytes in it wait for their commit, also once it is sealed.
#[test]
fn bytes_that_wait_for_a_commit_keep_their_segment() {
    let options = Options {
        collection_manual: true,
        ..automatic()
    };
    on_a_store(&options, async |machine, store| {
        push(store, A, 1).await;
        let content = Bytes::from(vec![2; 1000]);
        let waiting = store.put_small(content, Algorithm::Sha256).await;
        let waiting = waiting.expect("stored");
        let digest = waiting.digest();
        machine.env.clock.sleep(2 * GRACE).await;
        for full in [false, true] {
            let request = CollectionRequest {
                full,
                ..CollectionRequest::default()
            };
            let report = store.collect(request).await.expect("collected");
            assert_eq!(report.segments, 0, "the segment is gone");
        }
        commit(store, A, vec![waiting], vec![Change::Link(digest)]).await;
        let reader = store.open_blob(&digest).await.expect("readable");
        let bytes = reader.expect("stored").read_whole(1 << 20).await;
        assert_eq!(bytes.expect("intact"), vec![2; 1000]);
    });
}

/// Guards: for what was committed before a start, grace starts there: an answer may have promised it just before.
#[test]
fn a_restart_begins_grace_anew() {
    let machine = Machine::new(1, &check::empty_disk());
    machine.executor.block_on(async {
        let store = open(&machine, automatic()).await;
        let lost = push(&store, A, 1).await;
        machine.env.clock.sleep(9 * MINUTE).await;
        store.close().await.expect("the store closes");
        drop(store);
        let store = open(&machine, automatic()).await;
        machine.env.clock.sleep(9 * MINUTE).await;
        assert!(is_stored(&store, &lost).await, "it went too early");
        machine.env.clock.sleep(2 * MINUTE).await;
        assert!(!is_stored(&store, &lost).await, "it is still there");
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    let image = machine.disk.live_image();
    let report = check::fsck_image(1, &image).expect("a sound store");
    assert!(report.findings.is_empty(), "{report:?}");
}

/// Guards: a reader keeps its bytes when its blob is collected and its segment unlinked, and the space is free once it
/// ends.
#[test]
fn a_reader_keeps_its_bytes() {
    let options = Options {
        collection_manual: true,
        ..automatic()
    };
    on_a_store(&options, async |machine, store| {
        let whole = Bytes::from(vec![7; 3 << 20]);
        let digest = Digest::of(Algorithm::Sha256, &whole);
        upload(store, A, whole.clone()).await;
        let reader = store.open_blob(&digest).await.expect("readable");
        let reader = reader.expect("stored");
        machine.env.clock.sleep(2 * GRACE).await;
        let report = collect(store).await;
        assert_eq!((report.blobs, report.segments), (1, 1), "{report:?}");
        assert!(store.open_blob(&digest).await.expect("readable").is_none());
        let bytes = reader
            .read_whole(1 << 30)
            .await
            .expect("its bytes are kept");
        assert_eq!(bytes, whole);
    });
}

/// Guards: a dry run names exactly what a run then removes, and removes nothing.
#[test]
fn a_dry_run_tells_what_a_run_removes() {
    let options = Options {
        collection_manual: true,
        ..automatic()
    };
    on_a_store(&options, async |machine, store| {
        let kept = push(store, A, 1).await;
        put(store, A, 2, &[kept]).await;
        for salt in 10..20 {
            push(store, A, salt).await;
        }
        machine.env.clock.sleep(2 * GRACE).await;
        let young = push(store, A, 30).await;
        store
            .lease(&push(store, A, 10).await)
            .await
            .expect("leased");
        let previewed = preview(store).await;
        assert_eq!(
            (previewed.blobs, previewed.bytes, previewed.segments),
            (9, 9000, 0)
        );
        assert_eq!(preview(store).await, previewed);
        let done = collect(store).await;
        assert_eq!(done.listed, previewed.listed);
        assert!(is_stored(store, &young).await);
        let nothing = collect(store).await;
        assert_eq!((nothing.suspects, nothing.blobs), (2, 0), "{nothing:?}");
    });
}

/// Guards: DURABILITY.md, "Collect garbage" and "Compact": after a stop anywhere, a blob is whole or gone as a whole,
/// what is referenced is there, and a segment that a removal emptied is removed by the next open at the latest.
#[test]
fn a_stop_in_a_collection_loses_nothing() {
    let options = Options {
        collection_manual: true,
        ..automatic()
    };
    let scene = async |machine: &Machine, begun: &dyn Fn()| {
        let opened = Store::open(machine.env.clone(), &check::store_path(), options.clone()).await;
        let store = opened?.0;
        let kept = push(&store, A, 1).await;
        put(&store, A, 2, &[kept]).await;
        for salt in 10..14 {
            upload(&store, A, Bytes::from(vec![salt; 400_000])).await;
        }
        push(&store, A, 20).await;
        machine.env.clock.sleep(2 * GRACE).await;
        begun();
        let request = CollectionRequest {
            full: true,
            ..CollectionRequest::default()
        };
        let report = store.collect(request).await?;
        assert_eq!(report.blobs, 5);
        assert_eq!(report.compaction.segments, 1, "{report:?}");
        store.close().await
    };
    let kept = Digest::of(Algorithm::Sha256, &[1; 1000]);
    let mut seen = std::collections::BTreeSet::new();
    check::at_every_stop(&options, scene, async |store, stop| {
        assert!(is_stored(store, &kept).await, "stop {stop}");
        seen.insert(store.stats().await.expect("counted").blobs);
    });
    assert_eq!(seen, [2, 7].into(), "blobs that were left");
}
