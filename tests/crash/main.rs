//! The real program on real disks: killed at any moment, and watched by strace while it answers.
//!
//! Owns: the tests. What they do is in `kill`, `faults`, `work`, `ledger` and `trace`. Refuses: choices that cannot be replayed
//! (the seed is printed; `TONNAGE_TEST_SEED` gives it back), and waiting by sleeping.

mod faults; // a hundred clients on a disk that fails
mod kill; // what concurrent pushers do, and the kill
mod lane; // what the lanes share
mod ledger; // what was acknowledged, and the judgement of what is there afterwards
mod trace; // the order of syncs before each 201
mod work; // what a pusher does

use tonnage_tests::faulty::FaultyDisk;
use tonnage_tests::mount::{FileSystem, SmallDisk, or_skip};
use tonnage_tests::say;

use kill::Disk;

/// Guards: DURABILITY.md, "201" and "202 to a delete" rows, against `kill -9`: what was acknowledged is whole after a restart, what
/// was deleted stays deleted, every tag points where the last acknowledged write left it, an unfinished upload can be
/// finished or is unknown, and `tonnage fsck` agrees.
#[test]
fn acknowledged_writes_survive_kill_9() {
    let ended = kill::wanted(true).and_then(|rounds| kill::rounds(&Disk::Own, rounds));
    if let Err(why) = ended {
        panic!("{why}");
    }
}

/// Guards: the same on XFS.
#[test]
fn acknowledged_writes_survive_kill_9_on_xfs() {
    on_a_loop_device(FileSystem::Xfs, "on XFS");
}

/// Guards: the same on Btrfs.
#[test]
fn acknowledged_writes_survive_kill_9_on_btrfs() {
    on_a_loop_device(FileSystem::Btrfs, "on Btrfs");
}

/// Its file is sparse.
const LOOP_DEVICE_MIB: u64 = 32 << 10;

fn on_a_loop_device(kind: FileSystem, name: &'static str) {
    let rounds = kill::wanted(false).unwrap_or_else(|why| panic!("{why}"));
    let what = format!("kill -9 {name}");
    if rounds == 0 {
        say::skipped(&what, "TONNAGE_TEST_FULL is not 1");
        return;
    }
    let disk = SmallDisk::try_mount(kind, LOOP_DEVICE_MIB);
    let Some(disk) = or_skip(disk, &what) else {
        return;
    };
    if let Err(why) = kill::rounds(&Disk::Small(name, disk), rounds) {
        panic!("{why}");
    }
}

/// Guards: DURABILITY.md, "Failures while the store is open": with faults below it the server never answers 200, 201 or 202
/// falsely, ends every request, serves what it promised once the faults are over, and loses nothing of it to a power cut
/// in the middle of them.
#[test]
fn a_failing_disk_makes_no_promise_false() {
    let (seed, seconds) = match (lane::seed(), faults::seconds()) {
        (Ok(seed), Ok(seconds)) => (seed, seconds),
        (Err(why), _) | (_, Err(why)) => panic!("{why}"),
    };
    say::aloud(&format!(
        "faulty disk: {seconds} s, TONNAGE_TEST_SEED={seed}"
    ));
    let Some(disk) = or_skip(FaultyDisk::mount(seed), "a server on a failing disk") else {
        return;
    };
    if let Err(why) = faults::lane(disk, seed, seconds) {
        panic!("{why}");
    }
}

/// Guards: DURABILITY.md, "Order on disk", against a sync that the real backend forgot: before each 201 leaves, every segment
/// written for it was fdatasync'ed, its directory fsync'ed, and then the journal was written and fdatasync'ed.
#[test]
fn every_201_leaves_after_its_syncs() {
    if let Err(why) = trace::watch() {
        panic!("{why}");
    }
}
