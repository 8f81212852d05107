//! Leases: what an existence check promised is there, although a delete and a collector go on beside it.
//!
//! The registry's own check (look, lease, look again) over the engine. The collector is a stand-in that does what DESIGN asks of
//! one: it takes only what nothing links, references or holds, and looks at the catalog before and after it looks at the leases.

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

/// What both sides did. Ordinary flags: looking at them is no point of its own.
#[derive(Default)]
struct Deeds {
    promised: AtomicBool,
    collected: AtomicBool,
}

/// As HEAD does it.
async fn head(store: Store, deeds: Arc<Deeds>) {
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
        let gone = deeds.collected.load(Ordering::SeqCst);
        assert!(!gone, "a check said yes to what was collected");
        deeds.promised.store(true, Ordering::SeqCst);
    }
}

/// Whether the catalog keeps the blob.
fn named(store: &Store) -> bool {
    let view = store.view();
    let holders = view.holders(&digest("a"), 1).expect("rows are readable");
    !holders.is_empty() || view.referenced(&digest("a")).expect("rows are readable")
}

async fn delete_and_collect(store: Store, deeds: Arc<Deeds>) {
    let away = batch("r", vec![], vec![Change::Unlink(digest("a"))]);
    store.commit(away).await.expect("what was pushed before");
    for _ in 0..2 {
        if !named(&store) && !store.is_leased(&digest("a")) && !named(&store) {
            let promised = deeds.promised.load(Ordering::SeqCst);
            assert!(!promised, "what was promised was collected");
            deeds.collected.store(true, Ordering::SeqCst);
        }
    }
}

/// Pushes a manifest that lists the blob, where it may also be missing.
async fn put(store: Store, deeds: Arc<Deeds>) {
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
        let gone = deeds.collected.load(Ordering::SeqCst);
        assert!(
            !gone,
            "a manifest was told that what was collected is there"
        );
        deeds.promised.store(true, Ordering::SeqCst);
    }
}

/// A blob whose lease has ended, with one who is promised that it is there and one who deletes and collects it.
fn promise<F: Future<Output = ()> + Send + 'static>(promised: fn(Store, Arc<Deeds>) -> F) {
    let world = World::default();
    let store = world.open(Options {
        lease_grace: Duration::from_secs(1),
        ..options()
    });
    block_on(push(&store, "r", "a")).expect("nothing is wrong yet");
    world.pass(Duration::from_secs(2));
    let deeds = Arc::new(Deeds::default());
    let threads = [
        thread(promised(store.clone(), Arc::clone(&deeds))),
        thread(delete_and_collect(store.clone(), Arc::clone(&deeds))),
    ];
    for thread in threads {
        thread.join().expect("a thread ends");
    }
    block_on(store.close()).expect("a clean stop");
}

fn body() {
    promise(|store, deeds| async move { head(store, deeds).await });
}

/// Guards: what a manifest's check found there is held until its commit references it.
#[test]
fn a_manifest_holds_what_it_lists() {
    explore("a_manifest_holds_what_it_lists", 60, || {
        promise(|store, deeds| async move { put(store, deeds).await });
    });
}

/// Guards: a check that says yes has the bytes leased before anybody may take them.
#[test]
fn leases() {
    explore("leases", 100, body);
}

/// Longer than the store's task takes to look for leases that have expired, and shorter than a lease.
const BETWEEN_LOOKS: Duration = Duration::from_mins(10);

/// Pins come and go around a lease, while the store looks for those that have expired.
fn pins() {
    let world = World::default();
    let store = world.open(Options {
        lease_grace: 100 * BETWEEN_LOOKS,
        ..options()
    });
    let pinned = digest("a");
    let holder = {
        let store = store.clone();
        shuttle::thread::spawn(move || {
            for _ in 0..2 {
                let pin = store.pin(&[pinned]);
                assert!(store.is_leased(&pinned), "a pin holds");
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
        shuttle::thread::spawn(move || world.pass(BETWEEN_LOOKS))
    };
    holder.join().expect("a thread ends");
    granter.join().expect("a thread ends");
    time.join().expect("a thread ends");
    let held = store.is_leased(&pinned);
    assert!(held, "a lease ended before its time");
    world.pass(100 * BETWEEN_LOOKS);
    assert!(!store.is_leased(&pinned), "a pin was left behind");
    block_on(store.close()).expect("a clean stop");
}

/// Guards: no lease is lost when a pin of the same digest drops or the table is swept at that moment, and no pin is left behind.
#[test]
fn pins_and_leases() {
    explore("pins_and_leases", 100, pins);
}
