//! Generated histories, stopped before every write, sync and change of a directory, and the same histories in a real
//! directory.
//!
//! These tests run few seeds; `sim` (tests/sim) runs as many as requested. `TONNAGE_TEST_SEED` replays one,
//! `TONNAGE_TEST_FIRST_SEED` sets the first, `TONNAGE_TEST_FULL=1` runs more.

use std::collections::BTreeSet;

use tonnage_tests::model::census::Census;
use tonnage_tests::model::content::SIZES;
use tonnage_tests::model::generate::generate;
use tonnage_tests::model::sweep::{Depth, sweep};
use tonnage_tests::model::{real, shrink};
use tonnage_tests::say;

/// Returns the seeds to run. Each one orders tasks, completions and losses differently.
fn seeds(few: u64, many: u64) -> Vec<u64> {
    let number = |name| {
        let text = std::env::var(name).ok();
        text.map(|text| text.parse::<u64>().expect("the seed is a number"))
    };
    let count = if say::full() { many } else { few };
    let first = number("TONNAGE_TEST_FIRST_SEED").unwrap_or(1);
    let seeds: Vec<u64> = match number("TONNAGE_TEST_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + count).collect(),
    };
    println!("seeds {seeds:?}; replay one with TONNAGE_TEST_SEED");
    seeds
}

/// Guards: DURABILITY.md, every row, at every crash point of generated histories and of the following opens. Whatever
/// unsynced data the disk kept, the store opens and has exactly the transactions up to some LSN, not below any that was
/// answered or seen. `fsck` agrees before and after, and damage to a closed store is noticed.
#[test]
fn every_crash_point_recovers() {
    let mut census = Census::default();
    for seed in seeds(6, 6) {
        // One history is usually enough, and takes longer than all other tests here.
        if is_enough(&census) && !say::full() {
            break;
        }
        let history = generate(seed);
        let swept = sweep(&history, Depth::default());
        census.add(&swept.census);
        if let Some(failure) = swept.failure {
            panic!(
                "seed {seed}: \"{}\" in life {}, {}: {}\n{}last operations:\n{}\nto shrink it: sim --seed {seed}",
                failure.violation.check,
                failure.life,
                failure.stop,
                failure.violation.what,
                shrink::describe(&history),
                failure.log
            );
        }
    }
    println!(
        "{} crash points, {} images, {} distinct, {} openings cut off, all recovered",
        census.points, census.images, census.distinct, census.cut_openings
    );
    assert!(is_enough(&census), "the histories shrank: {census:?}");
}

fn is_enough(census: &Census) -> bool {
    census.points > 100 && census.distinct > 400 && census.cut_openings > 5
}

/// Guards: the same histories with real threads in a real directory. Every accepted call was allowed at its LSN, every
/// rejected one was not, and the state after each stop is the model's.
#[test]
fn the_same_histories_hold_in_a_real_directory() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for seed in seeds(12, 60) {
        let folder = tempfile::TempDir::new().expect("a folder");
        let history = generate(seed);
        let held = runtime.block_on(real::run(&history, folder.path(), || {
            tonnage_server::runtime::env().unwrap()
        }));
        if let Err(violation) = held {
            panic!(
                "seed {seed}: \"{}\": {}\n{}",
                violation.check,
                violation.what,
                shrink::describe(&history)
            );
        }
    }
}

/// Guards: within a hundred seeds the generator reaches every operation, every size around a boundary, and every kind
/// of stop. What it does not generate is not tested.
#[test]
fn the_generator_reaches_everything() {
    let mut census = Census::default();
    let histories: Vec<_> = (1..=200).map(generate).collect();
    histories
        .iter()
        .for_each(|history| census.note_history(history));
    let sizes: BTreeSet<usize> = census.by_size.keys().copied().collect();
    assert_eq!(sizes, SIZES.into_iter().collect());
    assert_eq!(
        census.by_operation.len(),
        20,
        "{:?}",
        census.by_operation.keys()
    );
    let lives = || histories.iter().flat_map(|history| &history.lives);
    assert!(lives().any(|life| life.closed) && lives().any(|life| !life.closed));
    assert!(lives().any(|life| life.slow) && lives().any(|life| life.room.is_some()));
    assert!(lives().any(|life| life.faults.iter().any(|fault| fault.flips)));
    assert!(histories.iter().any(|history| history.roomy) && histories.iter().any(|h| h.tight));
}
