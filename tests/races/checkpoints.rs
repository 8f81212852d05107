//! Checkpoints concurrent with transactions and readers: freeze, write, publish, drop of the old layers.

use shuttle::future::block_on;
use tonnage_engine::{Change, Digest, Lsn, Store};
use tonnage_races::explore::explore;
use tonnage_races::world::{Notes, World, batch, digest, is_linked, link, options, push, thread};

/// The state of the link of each repository that a thread changed and got an answer for.
type Answers = Notes<(Lsn, &'static str, bool)>;

async fn look(store: Store, answers: Answers, linked: Digest) {
    let old = store.view();
    let of_old = |repository| is_linked(&old, repository, &linked);
    let before = ["r", "w1", "w2"].map(of_old);
    let mut last = Lsn(0);
    for _ in 0..4 {
        let answered = answers.all();
        let view = store.view();
        assert!(view.lsn() >= last, "a reader went back to {}", view.lsn());
        last = view.lsn();
        for repository in ["w1", "w2"] {
            let said = answered.iter().rev().find(|(_, of, _)| *of == repository);
            if let Some((lsn, _, wanted)) = said {
                assert!(
                    view.lsn() >= *lsn,
                    "{lsn} was acknowledged and is not visible"
                );
                let there = is_linked(&view, repository, &linked);
                // Its thread may have continued since; only the last note of a thread that ended is final.
                let ended = answered
                    .iter()
                    .filter(|(_, of, _)| *of == repository)
                    .count()
                    == 3;
                assert!(
                    !ended || there == *wanted,
                    "the row of {repository} is {there} after {lsn} made it {wanted}"
                );
            }
        }
        assert!(
            is_linked(&view, "r", &linked),
            "a row of the oldest layer vanished"
        );
        assert_eq!(
            ["r", "w1", "w2"].map(of_old),
            before,
            "a state that a reader holds changed"
        );
    }
}

/// Links, unlinks and links again: three rows for one key.
async fn change(store: Store, answers: Answers, repository: &'static str) {
    let linked = link(&store, repository, "a")
        .await
        .expect("a blob that is there");
    answers.add((linked.lsn, repository, true));
    let away = batch(repository, vec![], vec![Change::Unlink(digest("a"))]);
    let away = store
        .commit(away)
        .await
        .expect("what was linked a moment ago");
    answers.add((away.lsn, repository, false));
    let linked = link(&store, repository, "a")
        .await
        .expect("a blob that is there");
    answers.add((linked.lsn, repository, true));
}

fn body() {
    let world = World::default();
    let store = world.open(options());
    block_on(push(&store, "r", "a")).expect("a push before any fault");
    let answers = Answers::default();
    let checkpoints = {
        let store = store.clone();
        thread(async move {
            // The fourth makes a merge due.
            for _ in 0..4 {
                store.checkpoint().await.expect("a disk without faults");
            }
        })
    };
    let reader = thread(look(store.clone(), answers.clone(), digest("a")));
    let writers = ["w1", "w2"].map(|of| thread(change(store.clone(), answers.clone(), of)));
    for thread in writers.into_iter().chain([reader, checkpoints]) {
        thread.join().expect("a thread ends");
    }
    let view = store.view();
    for repository in ["r", "w1", "w2"] {
        let there = is_linked(&view, repository, &digest("a"));
        assert!(there, "the row of {repository} vanished");
    }
    block_on(store.close()).expect("a clean stop");
    drop(store);
    let store = world.open(options());
    for repository in ["r", "w1", "w2"] {
        let view = store.view();
        let there = is_linked(&view, repository, &digest("a"));
        assert!(there, "the row of {repository} is not in the checkpoint");
    }
    block_on(store.close()).expect("a clean stop");
}

/// Guards: while checkpoints freeze, merge and replace layers, no row disappears or returns, states that readers hold
/// do not change, and the last checkpoint has every row.
#[test]
fn checkpoints() {
    explore("checkpoints", 40, body);
}

/// Writes enough rows for the back-pressure of a tiny delta: committers wait for checkpoints, and each is woken.
fn pressure() {
    let world = World::default();
    let store = world.open(tonnage_engine::Options {
        delta_budget_bytes: 64 << 10,
        ..options()
    });
    block_on(push(&store, "r", "a")).expect("a push before any fault");
    let writers = ["x", "y"].map(|prefix| {
        let store = store.clone();
        thread(async move {
            for number in 0..6 {
                // Names of 200 bytes, 200 of them in a batch: a third of the budget.
                let changes = (0..60)
                    .map(|tag| Change::SetTag {
                        tag: format!("{prefix}{number}-{tag:0>100}"),
                        digest: digest("a"),
                    })
                    .collect();
                let mut batch = batch("r", vec![], changes);
                batch.changes.insert(0, tonnage_races::world::manifest("a"));
                store.commit(batch).await.expect("a disk without faults");
            }
        })
    });
    for writer in writers {
        writer.join().expect("a writer ends");
    }
    block_on(store.close()).expect("a clean stop");
}

/// Guards: a committer that waits for space in the delta is woken whenever the checkpoint ends.
#[test]
fn back_pressure() {
    explore("back_pressure", 3, pressure);
}
