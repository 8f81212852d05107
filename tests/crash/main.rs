//! The real program on a real disk: killed at any moment, and watched by strace while it answers.
//!
//! Owns: the tests. What they do is in `kill`, `ledger` and `trace`. Refuses: choices that cannot be replayed
//! (the seed is printed; `TONNAGE_TEST_SEED` gives it back), and waiting by sleeping.

mod kill; // what concurrent pushers do, and the kill
mod ledger; // what was acknowledged, and the judgement of what is there afterwards
mod trace; // the order of syncs before each 201

/// Guards: DURABILITY.md, "201" rows, against `kill -9`: what was acknowledged is whole after a restart, every tag points where the last
/// acknowledged write left it, an unfinished upload can be finished or is unknown, and `tonnage fsck` agrees.
#[test]
fn acknowledged_writes_survive_kill_9() {
    if let Err(why) = kill::rounds() {
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
