//! Leases: what an existence check promised is there, although a delete and a collector go on beside it.
//!
//! The registry's own check (look, lease, look again) over the engine. The collector is a stand-in that does what DESIGN asks of
//! one: it takes only what nothing links and nothing holds, and looks at the catalog before it looks at the leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::future::block_on;
use tonnage_engine::lease::Leases;
use tonnage_engine::{Change, Store};
use tonnage_races::explore::explore;
use tonnage_races::world::{World, batch, digest, options, push, thread};
use tonnage_server::access::{Caller, Gate, Permission, Policy, Pull, Verdict};
use tonnage_server::embedded;
use tonnage_server::registry::Limits;

#[derive(Debug)]
struct Anybody;

impl Policy for Anybody {
    fn decide(&self, _: &Caller, _: Permission<'_>) -> Verdict {
        Verdict::Granted
    }
}

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
    let gate = Gate::new(Arc::new(Anybody));
    let pull = gate
        .authorize(&Caller::default(), Pull(name))
        .expect("anybody may");
    if registry.find_blob(&pull, digest("a")).await.is_ok() {
        let gone = deeds.collected.load(Ordering::SeqCst);
        assert!(!gone, "a check said yes to what was collected");
        deeds.promised.store(true, Ordering::SeqCst);
    }
}

async fn delete_and_collect(store: Store, deeds: Arc<Deeds>) {
    let away = batch("r", vec![], vec![Change::Unlink(digest("a"))]);
    store.commit(away).await.expect("what was pushed before");
    for _ in 0..2 {
        let named = !store
            .view()
            .holders(&digest("a"), 1)
            .expect("rows are readable")
            .is_empty();
        if !named && !store.is_leased(&digest("a")) {
            let promised = deeds.promised.load(Ordering::SeqCst);
            assert!(!promised, "what a check promised was collected");
            deeds.collected.store(true, Ordering::SeqCst);
        }
    }
}

fn body() {
    let world = World::default();
    let store = world.open(options());
    block_on(push(&store, "r", "a")).expect("nothing is wrong yet");
    let deeds = Arc::new(Deeds::default());
    let threads = [
        thread(head(store.clone(), Arc::clone(&deeds))),
        thread(delete_and_collect(store.clone(), Arc::clone(&deeds))),
    ];
    for thread in threads {
        thread.join().expect("a thread ends");
    }
    block_on(store.close()).expect("a clean stop");
}

/// Guards: a check that says yes has the bytes leased before anybody may take them.
#[test]
fn leases() {
    explore("leases", 100, body);
}

/// Pins come and go around a lease.
fn pins() {
    let world = World::default();
    let leases = Leases::new(world.env().clock, Duration::from_secs(60));
    let pinned = digest("a");
    let holder = {
        let leases = Arc::clone(&leases);
        shuttle::thread::spawn(move || {
            for _ in 0..2 {
                let pin = leases.pin(&[pinned]);
                assert!(leases.holds(&pinned), "a pin holds");
                drop(pin);
            }
        })
    };
    let granter = {
        let leases = Arc::clone(&leases);
        shuttle::thread::spawn(move || {
            leases.grant(pinned);
            for _ in 0..2 {
                assert!(leases.holds(&pinned), "a lease ended before its time");
            }
        })
    };
    let sweeper = {
        let leases = Arc::clone(&leases);
        shuttle::thread::spawn(move || leases.expire())
    };
    holder.join().expect("a thread ends");
    granter.join().expect("a thread ends");
    sweeper.join().expect("a thread ends");
    assert!(leases.holds(&pinned), "a lease ended before its time");
    world.pass(Duration::from_secs(61));
    assert!(!leases.holds(&pinned), "a pin was left behind");
    assert_eq!(leases.expire(), 0, "memory was left behind");
}

/// Guards: no lease is lost when a pin of the same digest drops or the table is swept at that moment, and no pin is left behind.
#[test]
fn pins_and_leases() {
    explore("pins_and_leases", 100, pins);
}
