//! Leases and collection: what an answer promised exists, although a delete and a collection run concurrently.
//!
//! The promises are the registry's own: an existence check, a manifest's check of its children, a mount, and a push of
//! the same content again.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shuttle::future::block_on;
use tonnage_engine::{
    Algorithm, Change, ClientId, CollectionRequest, Digest, ManifestEntry, Options, Require, Store,
    UntaggedPolicy, UploadClaim, UploadSpec,
};
use tonnage_races::explore::explore;
use tonnage_races::world::{World, batch, digest, options, push, thread};
use tonnage_server::access::{
    Action, Anonymous, Authorized, Gate, GrantAll, Pull, Push, Requester,
};
use tonnage_server::embedded;
use tonnage_server::oci::{Reference, RepositoryName};
use tonnage_server::registry::{Limits, ManifestPush, Precondition};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Returns a permission for repository `r`.
async fn allowed<A: Action>(action: impl Fn(RepositoryName) -> A) -> Authorized<A> {
    let gate = Gate::new(Arc::new(Anonymous), Arc::new(GrantAll));
    let action = action("r".parse().expect("a name"));
    let allowed = gate.authorize(&Requester::default(), action).await;
    allowed.expect("anybody may")
}

/// Checks the blob as HEAD does.
async fn head(store: Store) -> bool {
    let registry = embedded::registry(store, Limits::default());
    let pull = allowed(Pull).await;
    let found = registry.find_blob(&pull, digest("a")).await;
    found.is_ok()
}

/// Pushes a manifest that lists the blob, which may also be missing. Returns whether its check found the blob.
async fn put(store: Store) -> bool {
    let limits = Limits {
        sparse: vec!["r".parse().expect("a pattern")],
        ..Limits::default()
    };
    let registry = embedded::registry(store, limits);
    let push = allowed(Push).await;
    let layer = digest("a");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"x/y","digest":"{layer}","size":1}},"layers":[]}}"#
    );
    let manifest = ManifestPush {
        reference: &Reference::Tag("t".parse().expect("a tag")),
        tags: Vec::new(),
        content_type: Some(MANIFEST),
        bytes: text.into(),
        precondition: Precondition::default(),
        protected: Vec::new(),
    };
    let pushed = registry.push_manifest(&push, manifest).await;
    pushed.expect("a sparse repository").missing == 0
}

/// Links the blob in another repository, if it is still in the first.
async fn mount(store: Store) -> bool {
    let mut mount = batch("s", vec![], vec![Change::Link(digest("a"))]);
    mount.requires = vec![Require::LinkedIn {
        repository: "r".to_owned(),
        digest: digest("a"),
    }];
    store.commit(mount).await.is_ok()
}

/// Returns a content that gets a segment of its own, which is unlinked with it.
fn large() -> Bytes {
    Bytes::from(vec![7; 80 << 10])
}

/// Pushes the large content.
async fn upload(store: Store) -> bool {
    let spec = UploadSpec {
        repository: "r".to_owned(),
        ..UploadSpec::default()
    };
    let id = store.begin_upload(spec).expect("begun");
    let opened = store.open_upload(id, "r", UploadClaim::default()).await;
    let mut upload = opened.expect("opened");
    upload.write(large()).await.expect("written");
    let digest = Digest::of(Algorithm::Sha256, &large());
    let blob = upload.finish(digest, None).await.expect("finished");
    let mut batch = batch("r", vec![], vec![Change::Link(digest)]);
    (batch.create_repository, batch.staged) = (true, vec![blob]);
    store.commit(batch).await.expect("a sound disk");
    true
}

async fn collect(store: &Store) {
    let collected = store.collect(CollectionRequest::default()).await;
    collected.expect("a sound disk");
}

async fn unlink_and_collect(store: Store, digest: Digest, unlinks: bool) {
    if unlinks {
        let away = batch("r", vec![], vec![Change::Unlink(digest)]);
        // It fails if the blob was collected.
        drop(store.commit(away).await);
    }
    collect(&store).await;
}

thread_local! {
    /// The number of schedules with a promise, and with a removal.
    static SEEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Explores promises. Both outcomes must occur, unless one schedule is replayed.
fn explore_promises(name: &str, seeds: u64, body: fn()) {
    SEEN.set((0, 0));
    explore(name, seeds, body);
    let (promises, removals) = SEEN.get();
    println!("{name}: {promises} schedules with a promise, {removals} with a removal");
    if std::env::var_os("TONNAGE_TEST_SEED").is_none() {
        assert!(promises > 0 && removals > 0, "an outcome never occurred");
    }
}

/// Runs one thread that is promised a small blob, as in [`promise_of`].
fn promise<F: Future<Output = bool> + Send + 'static>(promised: fn(Store) -> F) {
    let pushed = |store: Store| async move { push(&store, "r", "a").await.is_ok() };
    promise_of(digest("a"), pushed, promised);
}

/// Runs one thread that is promised a blob whose grace is over, and two that collect it, one of them after a delete.
fn promise_of<P, F>(digest: Digest, pushed: fn(Store) -> P, promised: fn(Store) -> F)
where
    P: Future<Output = bool> + Send + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    let world = World::default();
    let store = world.open(Options {
        collection_grace: Duration::from_secs(100),
        collection_manual: true,
        ..options()
    });
    assert!(block_on(pushed(store.clone())), "a push before any fault");
    // Grace begins at the next look.
    world.pass(Duration::from_secs(1));
    block_on(collect(&store));
    world.pass(Duration::from_secs(200));
    let promised = thread(promised(store.clone()));
    let collectors =
        [true, false].map(|unlinks| thread(unlink_and_collect(store.clone(), digest, unlinks)));
    let promised = promised.join().expect("a thread ends");
    for collector in collectors {
        collector.join().expect("a thread ends");
    }
    let removed = store.collection_totals().blobs > 0;
    SEEN.with(|seen| {
        let (promises, removals) = seen.get();
        seen.set((
            promises + u64::from(promised),
            removals + u64::from(removed),
        ));
    });
    if promised {
        block_on(async {
            collect(&store).await;
            let stored = store.view().blob(&digest).expect("rows are readable");
            let stored = stored.expect("a promised blob was collected");
            let opened = store.open_found(&digest, &stored, ClientId::default());
            let reader = opened.await.expect("readable").expect("stored");
            let mut stream = reader.read(0..reader.len());
            while let Some(piece) = stream.next().await.expect("intact bytes") {
                assert!(!piece.is_empty(), "a window is empty");
            }
        });
    }
    block_on(store.close()).expect("a clean stop");
}

/// Guards: a child that a manifest's check found is protected until the commit references it.
#[test]
fn a_manifest_pins_its_children() {
    explore_promises("a_manifest_pins_its_children", 60, || promise(put));
}

/// Guards: a successful check has leased the bytes before a collection may take them.
#[test]
fn leases() {
    explore_promises("leases", 100, || promise(head));
}

/// Guards: a mount that was accepted has its bytes.
#[test]
fn a_mount_keeps_its_blob() {
    explore_promises("a_mount_keeps_its_blob", 60, || promise(mount));
}

/// Guards: the same content pushed again during its collection is whole: the push relies on no bytes that are being
/// removed.
#[test]
fn a_push_during_a_collection_is_whole() {
    explore_promises("a_push_during_a_collection_is_whole", 60, || {
        promise_of(Digest::of(Algorithm::Sha256, &large()), upload, upload);
    });
}

/// A manifest that its repository's policy removes after grace.
const UNTAGGED: &str = "untagged";

/// Puts a manifest without a tag.
async fn put_untagged(store: &Store) {
    let content = Bytes::from(UNTAGGED);
    let blob = store.put_small(content, Algorithm::Sha256).await;
    let blob = blob.expect("a sound disk");
    let entry = ManifestEntry {
        digest: blob.digest(),
        size: UNTAGGED.len() as u64,
        children: Vec::new(),
        subject: None,
        attributes: Bytes::from(format!(r#"{{"mediaType":"{MANIFEST}"}}"#)),
    };
    let mut put = batch("r", vec![], vec![Change::PutManifest(entry)]);
    (put.create_repository, put.staged) = (true, vec![blob]);
    store.commit(put).await.expect("a sound disk");
}

/// Moves a tag to the manifest and away, and to it again. Returns whether it was there.
async fn move_tag(store: Store) -> bool {
    let set = |tag: &str| Change::SetTag {
        tag: tag.to_owned(),
        digest: digest(UNTAGGED),
    };
    let to = batch("r", vec![], vec![set("t")]);
    let is_there = store.commit(to).await.is_ok();
    let away = batch("r", vec![], vec![Change::DeleteTag("t".to_owned())]);
    assert_eq!(store.commit(away).await.is_ok(), is_there);
    let again = batch("r", vec![], vec![set("u")]);
    assert_eq!(
        store.commit(again).await.is_ok(),
        is_there,
        "grace starts anew"
    );
    is_there
}

/// Pulls the manifest by its digest. Returns whether it was promised.
async fn pull(store: Store) -> bool {
    let registry = embedded::registry(store, Limits::default());
    let pull = allowed(Pull).await;
    let reference = Reference::Digest(digest(UNTAGGED));
    registry.find_manifest(&pull, &reference).await.is_ok()
}

fn a_tag_moves_during_a_removal() {
    let world = World::default();
    let store = world.open(Options {
        collection_grace: Duration::from_secs(100),
        collection_manual: true,
        // Its grace is longer.
        untagged: UntaggedPolicy::new(|_| Some(Duration::ZERO)),
        ..options()
    });
    block_on(put_untagged(&store));
    // Grace begins at the next look.
    world.pass(Duration::from_secs(1));
    block_on(collect(&store));
    world.pass(Duration::from_secs(200));
    let mover = thread(move_tag(store.clone()));
    let puller = thread(pull(store.clone()));
    let collector = {
        let store = store.clone();
        thread(async move { collect(&store).await })
    };
    let moved = mover.join().expect("a thread ends");
    let promised = puller.join().expect("a thread ends");
    collector.join().expect("a thread ends");
    let removed = store.collection_totals().manifests > 0;
    SEEN.with(|seen| {
        let (promises, removals) = seen.get();
        let promise = u64::from(moved || promised);
        seen.set((promises + promise, removals + u64::from(removed)));
    });
    let view = store.view();
    let found = view
        .repository("r")
        .expect("readable")
        .expect("it is there");
    let there = found
        .manifest(&digest(UNTAGGED))
        .expect("readable")
        .is_some();
    assert_ne!(there, removed);
    assert!(there || !moved, "a tag points at nothing");
    assert!(there || !promised, "a promised manifest was removed");
    let tag = found.tag("u").expect("readable");
    assert_eq!(tag.is_some(), moved);
    block_on(store.close()).expect("a clean stop");
}

/// Guards: a tag that is moved while an untagged manifest is removed keeps it or is refused, and a pull that found it
/// keeps it.
#[test]
fn tag_moves_against_removals() {
    explore_promises(
        "tag_moves_against_removals",
        100,
        a_tag_moves_during_a_removal,
    );
}

/// Longer than the interval of the task that removes expired leases, and shorter than a lease.
const BETWEEN_EXPIRIES: Duration = Duration::from_mins(10);

/// Takes and drops pins around a lease, while the store removes expired ones.
fn pins() {
    let world = World::default();
    let store = world.open(Options {
        collection_grace: 100 * BETWEEN_EXPIRIES,
        ..options()
    });
    // It was not pushed, which would lease it.
    let pinned = digest("a");
    let holder = {
        let store = store.clone();
        shuttle::thread::spawn(move || {
            for _ in 0..2 {
                let pin = block_on(store.pin(&[pinned])).expect("not poisoned");
                assert!(store.is_leased(&pinned), "a pinned digest is not protected");
                drop(pin);
            }
        })
    };
    let granter = {
        let store = store.clone();
        thread(async move {
            store.lease_manifest(&pinned).await.expect("not poisoned");
            for _ in 0..2 {
                let held = store.is_leased(&pinned);
                assert!(held, "a lease ended before its time");
            }
        })
    };
    let time = {
        let world = world.clone();
        shuttle::thread::spawn(move || world.pass(BETWEEN_EXPIRIES))
    };
    holder.join().expect("a thread ends");
    granter.join().expect("a thread ends");
    time.join().expect("a thread ends");
    let held = store.is_leased(&pinned);
    assert!(held, "a lease ended before its time");
    world.pass(100 * BETWEEN_EXPIRIES);
    assert!(!store.is_leased(&pinned), "a pin remained");
    block_on(store.close()).expect("a clean stop");
}

/// Guards: no lease is lost if a pin of the same digest is dropped or expired leases are removed at that moment, and
/// no pin remains.
#[test]
fn pins_and_leases() {
    explore("pins_and_leases", 100, pins);
}
