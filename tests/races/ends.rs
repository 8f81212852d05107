//! A close or a failure while other threads wait. No thread may wait forever; `shuttle` reports that as a deadlock.

use std::path::Path;

use shuttle::future::block_on;
use tonnage_engine::io::{Class, Io as _, LockAttempt};
use tonnage_engine::{Error, Options, Store};
use tonnage_races::explore::explore;
use tonnage_races::world::{Notes, ROOT, World, digest, is_linked, link, options, push, thread};

/// Links until an error; notes what was acknowledged.
async fn write(
    store: Store,
    names: [&'static str; 2],
    answers: Notes<&'static str>,
) -> Option<Error> {
    for name in names {
        match link(&store, name, "a").await {
            Ok(_) => answers.add(name),
            Err(error) => return Some(error),
        }
    }
    None
}

fn reopened_has(world: &World, answers: &Notes<&'static str>) {
    let store = world.open(options());
    for name in answers.all() {
        let view = store.view();
        let there = is_linked(&view, name, &digest("a"));
        assert!(
            there,
            "{name} was acknowledged and is missing after the stop"
        );
    }
    block_on(store.close()).expect("a clean stop");
}

fn close() {
    let world = World::default();
    let store = world.open(options());
    block_on(push(&store, "r", "a")).expect("a push before any fault");
    let answers = Notes::default();
    let writers = [["w1", "w2"], ["w3", "w4"]]
        .map(|names| thread(write(store.clone(), names, answers.clone())));
    let closers = [0, 1].map(|_| {
        let store = store.clone();
        thread(async move { store.close().await })
    });
    for writer in writers {
        let error = writer.join().expect("a writer ends");
        assert!(matches!(error, None | Some(Error::Closed)), "{error:?}");
    }
    for closer in closers {
        closer.join().expect("a close ends").expect("a clean stop");
    }
    drop(store);
    reopened_has(&world, &answers);
}

/// Guards: a commit while the store closes is acknowledged and survives, or is rejected.
#[test]
fn closing() {
    explore("closing", 60, close);
}

fn poison() {
    let world = World::default();
    // So large that no next file is prepared: the failing sync must be that of a frame.
    let store = world.open(Options {
        journal_file_bytes: 64 << 10,
        ..options()
    });
    block_on(push(&store, "r", "a")).expect("a push before any fault");
    world.disk.fail_journal_sync();
    let answers = Notes::default();
    let writers = [["w1", "w2"], ["w3", "w4"], ["w5", "w6"]]
        .map(|names| thread(write(store.clone(), names, answers.clone())));
    let reader = {
        let (store, disk) = (store.clone(), world.disk.clone());
        thread(async move {
            for _ in 0..4 {
                let lsn = store.view().lsn();
                assert!(
                    lsn <= disk.durable(),
                    "a reader saw {lsn}, which is not durable"
                );
            }
        })
    };
    for writer in writers {
        let error = writer.join().expect("a writer ends");
        assert!(matches!(error, Some(Error::Poisoned { .. })), "{error:?}");
    }
    reader.join().expect("a reader ends");
    assert_eq!(
        answers.all().len(),
        0,
        "acknowledged although the first sync failed"
    );
    assert!(store.poisoned().is_some());
    assert!(
        !world.disk.wrote_after_failure(),
        "a frame was written after the failed one"
    );
    block_on(store.close()).expect_err("a stop that is not clean");
    drop(store);
    reopened_has(&world, &answers);
}

/// Guards: a failed sync ends every waiting and later commit, nothing is written after it, and reads continue.
#[test]
fn poisoning() {
    explore("poisoning", 60, poison);
}

/// Drops the last handle while commits wait: they become durable, and the lock is released.
fn drop_without_close() {
    let world = World::default();
    let store = world.open(options());
    block_on(push(&store, "r", "a")).expect("a push before any fault");
    let answers = Notes::default();
    let writers = [["w1", "w2"], ["w3", "w4"]].map(|names| {
        let answers = answers.clone();
        let store = store.clone();
        thread(write(store, names, answers))
    });
    drop(store);
    for writer in writers {
        let error = writer.join().expect("a writer ends");
        assert!(error.is_none(), "{error:?}");
    }
    let lock = Path::new(ROOT);
    while block_on(world.disk.0.lock(Class::Directory.call(), lock))
        .is_ok_and(|attempt| matches!(attempt, LockAttempt::Taken(_)))
    {
        shuttle::thread::yield_now();
    }
    reopened_has(&world, &answers);
}

/// Guards: a store that is dropped without a close ends its tasks, releases its lock, and keeps what was acknowledged.
#[test]
fn dropping() {
    explore("dropping", 20, drop_without_close);
}
