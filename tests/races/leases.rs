//! Leases: what an existence check promised exists, although a delete and a collector run concurrently.
//!
//! The test uses the registry's own check (look, lease, look again) on the engine. The collector is a substitute with
//! the rules of DESIGN. It takes only blobs that nothing links, references, leases or pins, and reads the catalog
//! before and after the leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::future::block_on;
use tonnage_engine::{Change, Options, Store};
use tonnage_races::explore::explore;
use tonnage_races::world::{World, batch, digest, options, push, thread};
use tonnage_server::access::{Anonymous, Gate, GrantAll, Pull, Push, Requester};
use tonnage_server::embedded;
use tonnage_server::oci::Reference;
use tonnage_server::registry::{Limits, ManifestPush, Precondition};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The acts of both sides, as ordinary flags: reading them is no scheduling point.
#[derive(Default)]
struct Acts {
    promised: AtomicBool,
    collected: AtomicBool,
}

/// Checks the blob as HEAD does.
async fn head(store: Store, acts: Arc<Acts>) {
    let registry = embedded::registry(store, Limits::default());
    let name = "r".parse().expect("a name");
    let gate = Gate::new(Arc::new(Anonymous), Arc::new(GrantAll));
    let nobody = Requester::default();
    let pull = gate.authorize(&nobody, Pull(name)).await;
    let pull = pull.expect("anybody may");
    if registry
        .find_and_lease_blob(&pull, digest("a"))
        .await
        .is_ok()
    {
        let gone = acts.collected.load(Ordering::SeqCst);
        assert!(!gone, "a check promised a collected blob");
        acts.promised.store(true, Ordering::SeqCst);
    }
}

/// Returns whether the catalog keeps the blob.
fn named(store: &Store) -> bool {
    let view = store.view();
    let holders = view.holders(&digest("a"), 1).expect("rows are readable");
    !holders.is_empty() || view.referenced(&digest("a")).expect("rows are readable")
}

async fn delete_and_collect(store: Store, acts: Arc<Acts>) {
    let away = batch("r", vec![], vec![Change::Unlink(digest("a"))]);
    store.commit(away).await.expect("what was pushed before");
    for _ in 0..2 {
        if !named(&store) && !store.is_leased(&digest("a")) && !named(&store) {
            let promised = acts.promised.load(Ordering::SeqCst);
            assert!(!promised, "a promised blob was collected");
            acts.collected.store(true, Ordering::SeqCst);
        }
    }
}

/// Pushes a manifest that lists the blob, which may also be missing.
async fn put(store: Store, acts: Arc<Acts>) {
    let limits = Limits {
        sparse: vec!["r".parse().expect("a pattern")],
        ..Limits::default()
    };
    let registry = embedded::registry(store, limits);
    let gate = Gate::new(Arc::new(Anonymous), Arc::new(GrantAll));
    let push = Push("r".parse().expect("a name"));
    let nobody = Requester::default();
    let push = gate.authorize(&nobody, push).await;
    let push = push.expect("anybody may");
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
    };
    let pushed = registry.push_manifest(&push, manifest).await;
    if pushed.expect("a sparse repository").missing == 0 {
        let gone = acts.collected.load(Ordering::SeqCst);
        assert!(!gone, "a manifest's check found a collected blob");
        acts.promised.store(true, Ordering::SeqCst);
    }
}

/// Runs one thread that is promised a blob whose lease has ended, and one that deletes and collects it.
fn promise<F: Future<Output = ()> + Send + 'static>(promised: fn(Store, Arc<Acts>) -> F) {
    let world = World::default();
    let store = world.open(Options {
        collection_grace: Duration::from_secs(1),
        ..options()
    });
    block_on(push(&store, "r", "a")).expect("a push before any fault");
    world.pass(Duration::from_secs(2));
    let acts = Arc::new(Acts::default());
    let threads = [
        thread(promised(store.clone(), Arc::clone(&acts))),
        thread(delete_and_collect(store.clone(), Arc::clone(&acts))),
    ];
    for thread in threads {
        thread.join().expect("a thread ends");
    }
    block_on(store.close()).expect("a clean stop");
}

fn body() {
    promise(|store, acts| async move { head(store, acts).await });
}

/// Guards: a child that a manifest's check found is protected until the commit references it.
#[test]
fn a_manifest_pins_its_children() {
    explore("a_manifest_holds_what_it_lists", 60, || {
        promise(|store, acts| async move { put(store, acts).await });
    });
}

/// Guards: a successful check has leased the bytes before a collector may take them.
#[test]
fn leases() {
    explore("leases", 100, body);
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
    let pinned = digest("a");
    let holder = {
        let store = store.clone();
        shuttle::thread::spawn(move || {
            for _ in 0..2 {
                let pin = block_on(store.pin(&[pinned]));
                assert!(store.is_leased(&pinned), "a pinned digest is not protected");
                drop(pin);
            }
        })
    };
    let granter = {
        let store = store.clone();
        thread(async move {
            store.lease(&pinned).await.expect("rows are readable");
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

/// Guards: no lease is lost if a pin of the same digest is dropped or expired leases are removed at that moment, and no
/// pin remains.
#[test]
fn pins_and_leases() {
    explore("pins_and_leases", 100, pins);
}
