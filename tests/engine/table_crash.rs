//! Checkpoints on a disk that loses power: at every write and sync, and with errors at any of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tonnage_engine::checkpoint::{self, Facts, History};
use tonnage_engine::extent::Lsn;
use tonnage_engine::table::{self, Layers, PageSizes, Runs, Site, Tiers};
use tonnage_engine::{Error, Result};
use tonnage_tests::machine::{ENOSPC, Fault, Image, Machine, OpKind, Outcome, Policy};

use crate::table::superblock;

const ROOT: &str = "/store";
const ROUNDS: u64 = 3;

fn site(machine: &Machine) -> Site {
    let mut site = Site::new(machine.env.clone(), Path::new(ROOT), &superblock());
    site.tiers = Tiers {
        fanout: 2,
        unit_bytes: 4 << 10,
    };
    site.pages = PageSizes {
        index_bytes: 512,
        other_bytes: 1024,
    };
    site
}

fn facts(round: u64) -> Facts {
    Facts {
        lsn: Lsn(round),
        journal_number: round,
        journal_offset: 4096,
        next_repository: round,
        next_segment: round,
    }
}

/// Rows that round `round` sets: some new, some replaced; the value tells the round.
fn put_round(layers: &mut Layers, round: u64) {
    for n in 0..40_u64 {
        let key = format!("b{:08}", (n * 37 + round * 20) % 90);
        layers.put(
            Bytes::from(key),
            Some(Bytes::from(vec![b'0' + round as u8; 90])),
        );
    }
    layers.put(Bytes::from(format!("b{:08}", round * 11)), None);
}

/// Every row as of the end of `rounds` rounds.
fn expected(rounds: u64) -> Vec<(Bytes, Bytes)> {
    let mut layers = Layers::new(Runs::empty());
    for round in 1..=rounds {
        put_round(&mut layers, round);
    }
    layers.scan_prefix(b"", None).map(Result::unwrap).collect()
}

async fn rows(layers: &Layers) -> Vec<(Bytes, Bytes)> {
    let (mut scan, mut rows) = (layers.scan_prefix(b"", None), Vec::new());
    while let Some(row) = scan.next_resident().await.unwrap() {
        rows.push(row);
    }
    rows
}

/// One checkpoint, and the merge that is due after it.
async fn run(
    site: &Site,
    history: &History,
    round: u64,
    frozen: &Layers,
) -> Result<(Layers, History)> {
    let flushed = checkpoint::flush(site, history, facts(round), frozen, frozen.runs()).await?;
    let (mut layers, mut history) = (frozen.unfreeze(flushed.runs), flushed.history);
    while let Some(range) = layers.runs().due(site) {
        let merged = table::merge(site, layers.runs(), range).await?;
        let done = checkpoint::publish(site, &history, merged.over(layers.runs())).await?;
        layers = layers.with_runs(done.runs);
        history = done.history;
    }
    Ok((layers, history))
}

/// Rounds of changes with a checkpoint each, from what the disk holds; tells which was durable when.
async fn workload(site: &Site, mut durable: impl FnMut(u64)) {
    let mut layers = Layers::new(Runs::empty());
    let mut history = History::default();
    for round in 1..=ROUNDS {
        put_round(&mut layers, round);
        let frozen = layers.freeze();
        (layers, history) = run(site, &history, round, &frozen).await.unwrap();
        durable(round);
    }
}

/// The run files that the two newest checkpoints name.
fn named(history: &History) -> BTreeSet<PathBuf> {
    let records = [history.newest(), history.older()].into_iter().flatten();
    let ids = records.flat_map(|record| record.runs.iter().map(|run| run.id));
    ids.map(|id| Path::new(ROOT).join(format!("runs/{id:016x}.run")))
        .collect()
}

/// Opens what a stop left, checks it, and carries on from there with one more checkpoint.
fn check_image(image: &Image, durable: u64, label: &str) {
    let machine = Machine::new(1, image);
    machine.executor.block_on(async {
        let site = site(&machine);
        let loaded = checkpoint::load(&site).await.unwrap();
        let round = loaded
            .chosen
            .as_ref()
            .map_or(0, |chosen| chosen.record.lsn.0);
        assert!(
            round == durable || round == durable + 1,
            "{label}: checkpoint {round} after {durable} was durable; passed over: {:?}",
            loaded.rejected
        );
        if let Some(chosen) = &loaded.chosen {
            assert_eq!(chosen.record.journal_number, round, "{label}");
        }
        let mut layers = Layers::new(loaded.chosen.map_or_else(Runs::empty, |chosen| chosen.runs));
        assert_eq!(rows(&layers).await, expected(round), "{label}");
        put_round(&mut layers, round + 1);
        let frozen = layers.freeze();
        let (layers, _) = run(&site, &loaded.history, round + 1, &frozen)
            .await
            .unwrap();
        assert_eq!(rows(&layers).await, expected(round + 1), "{label}");
        let again = checkpoint::load(&site).await.unwrap().chosen.unwrap();
        assert_eq!(again.record.lsn, Lsn(round + 1), "{label}");
    });
}

/// Guards: after a stop at any write or sync of a checkpoint, the newest one that was finished, or the one being
/// written, is found with exactly its rows; the next one succeeds over what is left.
#[test]
fn a_stop_anywhere_leaves_the_newest_finished_checkpoint() {
    let seed = 11;
    println!("seed {seed}");
    let machine = Machine::new(seed, &Image::with_dir(ROOT));
    machine.executor.block_on(workload(&site(&machine), |_| {}));
    let points = machine.disk.points();
    assert!(points > 30, "{points} crash points");
    let mut images = 0;
    for point in 0..points {
        let machine = Machine::new(seed, &Image::with_dir(ROOT));
        machine.disk.stop_after(point);
        let mut durable = 0;
        let site = site(&machine);
        let outcome = machine
            .executor
            .run_until_crash(workload(&site, |round| durable = round));
        assert!(
            matches!(outcome, Outcome::Crashed),
            "point {point} of {points}"
        );
        for crash in machine.disk.crash_images(&Policy::coarse(seed)) {
            images += 1;
            check_image(
                &crash.image,
                durable,
                &format!("seed {seed}, point {point}, {}", crash.label),
            );
        }
    }
    println!("{points} points, {images} images");
}

/// A checkpoint without `fault`, one with its merge that meets it, one more; false if the fault met nothing.
fn fails_alone(machine: &Machine, site: &Site, fault: &Fault) -> bool {
    let mut layers = Layers::new(Runs::empty());
    put_round(&mut layers, 1);
    let block_on = |history: &History, round: u64, frozen: &Layers| {
        machine.executor.block_on(run(site, history, round, frozen))
    };
    let run_files = || -> BTreeSet<PathBuf> {
        // What a failed attempt wrote is unlinked by a task of its own.
        machine.executor.settle();
        let files = machine.disk.live_image().files.into_keys();
        files
            .filter(|path| path.starts_with("/store/runs"))
            .collect()
    };
    let found = |layers: &Layers| machine.executor.block_on(rows(layers));
    let (mut layers, history) = block_on(&History::default(), 1, &layers.freeze()).unwrap();
    put_round(&mut layers, 2);
    let mut frozen = layers.freeze();
    put_round(&mut frozen, 3);
    machine.disk.add_fault(fault.clone());
    let attempt = block_on(&history, 2, &frozen);
    machine.disk.clear_faults();
    let Err(error) = attempt else { return false };
    assert_eq!(
        error.is_no_space(),
        fault.errno == ENOSPC,
        "{fault:?}: {error}"
    );
    let loaded = machine.executor.block_on(checkpoint::load(site)).unwrap();
    let chosen = loaded.chosen.unwrap();
    // Where it met the merge, the checkpoint before that is whole.
    let round = chosen.record.lsn.0;
    assert!(round == 1 || chosen.record.runs.len() == 2, "{fault:?}");
    assert_eq!(run_files(), named(&loaded.history), "{fault:?}");
    assert_eq!(
        found(&Layers::new(chosen.runs)),
        expected(round),
        "{fault:?}"
    );
    if matches!(error, Error::Poisoned { .. }) || round == 2 {
        return true;
    }
    let frozen = frozen.thaw().freeze();
    let (layers, history) = block_on(&history, 3, &frozen).unwrap();
    assert_eq!(found(&layers), expected(3), "{fault:?}");
    assert_eq!(run_files(), named(&history), "{fault:?}");
    true
}

/// Guards: an error at any write or sync fails that checkpoint alone: the one before is still found, what is in memory is
/// whole, and the next attempt succeeds and leaves no file behind that nothing names.
#[test]
fn an_error_anywhere_fails_one_checkpoint_alone() {
    let kinds = [
        (OpKind::Write, ENOSPC),
        (OpKind::SyncData, 5),
        (OpKind::SyncDir, 5),
        (OpKind::Create, ENOSPC),
        (OpKind::SetLen, 5),
        (OpKind::Read, 5),
        (OpKind::List, 5),
    ];
    let mut failures = 0;
    for (kind, errno) in kinds {
        for n in 1.. {
            let machine = Machine::new(3, &Image::with_dir(ROOT));
            let site = site(&machine);
            if !fails_alone(&machine, &site, &Fault::nth(kind, n).with_errno(errno)) {
                break;
            }
            failures += 1;
        }
    }
    assert!(failures > 10, "{failures} failures");
}
