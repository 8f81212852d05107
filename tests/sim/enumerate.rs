//! Stops after every write, sync and change of a name.
//!
//! A sweep runs the workload once to count its crash points, then once for each of them, and opens the images that a disk
//! may hold after the stop; with one seed, or with eight under `TONNAGE_TEST_FULL=1`. `TONNAGE_TEST_SEED` replays a run.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tonnage_engine::Store;
use tonnage_tests::sim::{Image, Outcome, Policy, SimEnv};

use super::check;
use super::workload::{self, Progress, Script};

/// One run of the workload on a new disk.
struct Run {
    machine: SimEnv,
    progress: Vec<Progress>,
}

/// Runs the workload until the end or until `stop_after` crash points.
fn run(seed: u64, scripts: &[Script], stop_after: Option<u64>) -> Run {
    let machine = SimEnv::new(seed, &check::empty_disk());
    if let Some(points) = stop_after {
        machine.disk.stop_after(points);
    }
    let progress: Vec<_> = scripts
        .iter()
        .map(|_| Arc::new(Mutex::new(Progress::default())))
        .collect();
    let outcome = machine.executor.run_until_crash(async {
        let opened = Store::open(machine.env.clone(), &check::store_path(), check::options()).await;
        let (store, _) = opened.expect("a new store opens");
        let runs = scripts.iter().zip(&progress).map(|(script, progress)| {
            workload::run(store.clone(), script.clone(), Arc::clone(progress))
        });
        for ended in futures_util::future::join_all(runs).await {
            ended.expect("no step fails on a healthy disk");
        }
        store.close().await.expect("a store closes");
    });
    assert_eq!(
        matches!(outcome, Outcome::Crashed),
        stop_after.is_some(),
        "seed {seed}"
    );
    let progress = progress.iter().map(|progress| *progress.lock()).collect();
    Run { machine, progress }
}

/// The seeds to run: each orders tasks, completions and losses differently.
fn seeds() -> Vec<u64> {
    let given = std::env::var("TONNAGE_TEST_SEED");
    let seeds: Vec<u64> = match given {
        Ok(text) => vec![text.parse().expect("TONNAGE_TEST_SEED is a number")],
        Err(_) if full() => (1..=8).collect(),
        Err(_) => vec![1],
    };
    println!("seeds {seeds:?}; replay one with TONNAGE_TEST_SEED");
    seeds
}

fn full() -> bool {
    std::env::var("TONNAGE_TEST_FULL").is_ok_and(|value| value == "1")
}

/// Guards: the workload, the model and the check agree when nothing goes wrong; otherwise the sweep proves nothing.
#[test]
fn an_undisturbed_run_ends_as_the_model_says() {
    let scripts = workload::scripts();
    for seed in seeds() {
        let run = run(seed, &scripts, None);
        run.machine.executor.settle();
        for (script, progress) in scripts.iter().zip(&run.progress) {
            assert_eq!(progress.done, script.steps.len());
        }
        check::recovered(
            seed,
            &run.machine.disk.live_image(),
            &scripts,
            &run.progress,
        )
        .unwrap();
    }
}

/// Guards: DURABILITY.md, every row, at every crash point: whatever the disk kept of what was not synced, the store opens,
/// holds what was acknowledged, holds nothing half, and `fsck` agrees before and after.
#[test]
fn every_crash_point_recovers() {
    for seed in seeds() {
        sweep(seed, &workload::scripts());
    }
}

fn sweep(seed: u64, scripts: &[Script]) {
    let points = run(seed, scripts, None).machine.disk.points();
    let (mut images, mut distinct) = (0_u64, HashSet::new());
    for stop_after in 0..points {
        let run = run(seed, scripts, Some(stop_after));
        for crash in run
            .machine
            .disk
            .crash_images(&Policy::coarse(seed ^ stop_after))
        {
            images += 1;
            if !distinct.insert(crash.image.stable_hash()) {
                continue;
            }
            if let Err(why) = check::recovered(seed ^ 0xfeed, &crash.image, scripts, &run.progress)
            {
                let log = run.machine.disk.log_text();
                let tail: Vec<_> = log.lines().rev().take(25).collect();
                panic!(
                    "seed {seed}, stopped after point {stop_after} of {points}, image {:?}: {why}\nlast operations, newest first:\n{}",
                    crash.label,
                    tail.join("\n")
                );
            }
        }
    }
    println!(
        "seed {seed}: {points} crash points, {images} images, {} distinct, all recovered",
        distinct.len()
    );
    assert!(
        points > 200 && distinct.len() > 1000,
        "the workload shrank: {points} points, {} images",
        distinct.len()
    );
}

/// Guards: recovery cut off anywhere, with any of its own unsynced effects lost, leaves a store that opens and holds the same.
#[test]
fn recovery_cut_off_anywhere_recovers() {
    for seed in seeds() {
        cut_openings(seed, &workload::scripts());
    }
}

/// Every ninth stop of the workload, three of its images, every crash point of opening them.
fn cut_openings(seed: u64, scripts: &[Script]) {
    let points = run(seed, scripts, None).machine.disk.points();
    let (mut cuts, mut distinct) = (0_u64, HashSet::new());
    for stop_after in (seed % 9..points).step_by(9) {
        let run = run(seed, scripts, Some(stop_after));
        let images = run
            .machine
            .disk
            .crash_images(&Policy::coarse(seed ^ stop_after));
        let picked = images.iter().take(2).chain(images.last());
        for first in picked {
            let recovery_points = points_of_open(seed, &first.image);
            for cut in 0..recovery_points {
                cuts += 1;
                for second in images_of_cut_open(seed, &first.image, cut) {
                    if !distinct.insert(second.image.stable_hash()) {
                        continue;
                    }
                    if let Err(why) = check::recovered(seed, &second.image, scripts, &run.progress)
                    {
                        panic!(
                            "seed {seed}, stopped after {stop_after} of {points}, image {:?}, opening stopped after {cut} of {recovery_points}, image {:?}: {why}",
                            first.label, second.label
                        );
                    }
                }
            }
        }
    }
    println!(
        "seed {seed}: {cuts} openings cut off, {} distinct images, all recovered",
        distinct.len()
    );
    assert!(cuts > 1000, "recovery shrank: {cuts} cuts");
}

/// Crash points of opening and closing an image.
fn points_of_open(seed: u64, image: &Image) -> u64 {
    let machine = SimEnv::new(seed, image);
    machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &check::store_path(), check::options()).await;
        let (store, _) = opened.expect("the image opens");
        store.close().await.expect("the store closes");
    });
    machine.disk.points()
}

fn images_of_cut_open(seed: u64, image: &Image, cut: u64) -> Vec<tonnage_tests::sim::CrashImage> {
    let machine = SimEnv::new(seed, image);
    machine.disk.stop_after(cut);
    let outcome = machine.executor.run_until_crash(async {
        let opened = Store::open(machine.env.clone(), &check::store_path(), check::options()).await;
        let (store, _) = opened.expect("the image opens");
        store.close().await.expect("the store closes");
    });
    assert!(matches!(outcome, Outcome::Crashed));
    machine.disk.crash_images(&Policy {
        prefixes: 2,
        single_losses: 2,
        torn: 2,
        subsets: 2,
        seed,
    })
}
