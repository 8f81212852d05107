//! The real program on real disks: killed at any moment, run on a failing disk, and traced by strace.
//!
//! Owns: the tests. Their parts are in `kill`, `faults`, `work`, `ledger` and `trace`. Refuses: choices that cannot be
//! replayed (the seed is printed, and `TONNAGE_TEST_SEED` sets it), and sleeping as a way to wait.

mod faults; // a hundred clients on a failing disk
mod kill; // concurrent pushers, and the kill
mod lane; // settings of the tests
mod ledger; // what was acknowledged, and the check of it
mod trace; // the order of syncs before each 201
mod work; // the operations of a pusher

use tonnage_tests::faulty::FaultyDisk;
use tonnage_tests::mount::{FileSystem, SmallDisk, or_skip};
use tonnage_tests::say;

use kill::Disk;

/// Guards: DURABILITY.md, rows "201" and "202 to a delete", against `kill -9`: acknowledged content is whole after a
/// restart, deleted content stays deleted, and every tag is where the last acknowledged write left it. An unfinished
/// upload can be finished or is unknown, and `tonnage fsck` has no findings.
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

/// The size of the device; its file is sparse.
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

/// Guards: DURABILITY.md, "Failures while the store is open": on a failing disk no 200, 201 or 202 is false, and every
/// request ends. After the faults everything promised is served, also after a power cut in the middle of them.
#[test]
fn a_failing_disk_makes_no_promise_false() {
    let (seed, seconds) = match (lane::seed(), faults::seconds()) {
        (Ok(seed), Ok(seconds)) => (seed, seconds),
        (Err(why), _) | (_, Err(why)) => panic!("{why}"),
    };
    say::print_line(&format!(
        "faulty disk: {seconds} s, TONNAGE_TEST_SEED={seed}"
    ));
    let Some(disk) = or_skip(FaultyDisk::mount(seed), "a server on a failing disk") else {
        return;
    };
    if let Err(why) = faults::lane(disk, seed, seconds) {
        panic!("{why}");
    }
}

/// Guards: DURABILITY.md, "Order on disk", against a sync that the real backend omits. Before each 201, every segment
/// written for it was fdatasync'ed and its directory fsync'ed; then the journal was written and fdatasync'ed.
#[test]
fn every_201_leaves_after_its_syncs() {
    if let Err(why) = trace::watch() {
        panic!("{why}");
    }
}
