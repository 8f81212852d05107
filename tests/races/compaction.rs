//! Compaction beside a removal, a push and a reader of the blob that it moves.

use std::cell::Cell;
use std::time::Duration;

use shuttle::future::block_on;
use tonnage_engine::{ClientId, CollectionRequest, Options, Store};
use tonnage_races::explore::explore;
use tonnage_races::world::{World, digest, options, push, thread};

const GRACE: Duration = Duration::from_secs(100);

/// The blob that is moved, and the garbage beside it.
const MOVED: &str = "moved";
const GARBAGE: &str = "garbage";

thread_local! {
    /// The number of schedules with a move, and of those in which the blob was removed, too.
    static SEEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

async fn collect(store: &Store, full: bool) {
    let request = CollectionRequest {
        full,
        ..CollectionRequest::default()
    };
    store.collect(request).await.expect("a sound disk");
}

/// Reads the blob from the place that a view from before has. It is intact or gone.
async fn read(store: Store) {
    let moved = digest(MOVED);
    let found = store.view().blob(&moved);
    let Some(found) = found.expect("rows are readable") else {
        return;
    };
    for _ in 0..2 {
        let opened = store.open_found(&moved, &found, ClientId::default());
        let Some(reader) = opened.await.expect("a healthy blob") else {
            return;
        };
        let mut bytes = Vec::new();
        let mut stream = reader.read(0..reader.len());
        while let Some(piece) = stream.next().await.expect("intact bytes") {
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(bytes, MOVED.as_bytes());
    }
}

/// Lets a compaction, a removal of the blob whose lease has ended, a reader, and perhaps a push of the same content run
/// at the same time.
fn compaction(pushes: bool) {
    let world = World::default();
    let store = world.open(Options {
        collection_grace: GRACE,
        collection_manual: true,
        ..options()
    });
    block_on(async {
        push(&store, "r", MOVED).await.expect("a sound disk");
        push(&store, "r", GARBAGE).await.expect("a sound disk");
        // Grace begins at the next look.
        world.pass(Duration::from_secs(1));
        collect(&store, false).await;
        world.pass(2 * GRACE);
        store.lease(&digest(MOVED)).await.expect("stored");
        collect(&store, false).await;
    });
    let compacting = store.clone();
    let compacting = thread(async move { collect(&compacting, true).await });
    let removing = (world.clone(), store.clone());
    let removing = thread(async move {
        removing.0.pass(2 * GRACE);
        collect(&removing.1, false).await;
    });
    let reading = thread(read(store.clone()));
    if pushes {
        block_on(push(&store, "r", MOVED)).expect("a sound disk");
    }
    for ended in [compacting, removing, reading] {
        ended.join().expect("a thread ends");
    }
    let moved = store.compaction_totals().blobs > 0;
    let removed = store.collection_totals().blobs > 1;
    SEEN.with(|seen| {
        let (moves, removals) = seen.get();
        seen.set((
            moves + u64::from(moved),
            removals + u64::from(moved && removed),
        ));
    });
    block_on(async {
        let stored = store.view().blob(&digest(MOVED)).expect("readable");
        assert!(stored.is_some() || !pushes, "the pushed blob is gone");
        let returned = removed && !pushes && stored.is_some();
        assert!(!returned, "a removed blob returned with its copy");
        assert!(!store.is_damaged(&digest(MOVED)).await.expect("known"));
        // Whatever the schedule, what is left in segments can be removed.
        collect(&store, true).await;
        read(store.clone()).await;
        store.close().await.expect("a clean stop");
    });
}

fn explore_moves(name: &str, body: fn()) {
    SEEN.set((0, 0));
    explore(name, 40, body);
    let (moves, removals) = SEEN.get();
    println!("{name}: {moves} schedules with a move, {removals} of them with a removal");
    if std::env::var_os("TONNAGE_TEST_SEED").is_none() {
        assert!(moves > 0 && removals > 0, "an outcome never occurred");
    }
}

/// Guards: a blob is moved or removed, never both at once: no row points to bytes that are gone, no reader finds
/// damage, and a segment with a copy that waits for its commit stays.
#[test]
fn a_move_beside_a_removal() {
    explore_moves("a_move_beside_a_removal", || compaction(false));
}

/// Guards: the same content pushed while it is moved and removed is whole.
#[test]
fn a_push_beside_a_move() {
    explore_moves("a_push_beside_a_move", || compaction(true));
}
