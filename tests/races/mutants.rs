//! Known-bad engines: each has to be caught, or the schedules prove nothing.
//!
//! Two sorts: mutations that the simulator catches too, on one thread (`probe::Mutation`), and those that only another thread at the
//! wrong moment shows (`probe::Race`). The table it prints is the one in DURABILITY.md.

use std::fmt::Write as _;

use tonnage_engine::probe::{self, Mutation, Race};
use tonnage_races::explore::caught;

use super::{checkpoints, commits, ends, leases, segments, uploads};

/// Seeds that a known-bad engine may survive before it counts as not caught.
const SEEDS: u64 = 400;

type Body = (&'static str, fn());

const COMMITS: Body = ("commits", commits::body);
const CHECKPOINTS: Body = ("checkpoints", checkpoints::body);
const PRESSURE: Body = ("back_pressure", checkpoints::pressure);
const LEASES: Body = ("leases", leases::body);
const PINS: Body = ("pins_and_leases", leases::pins);
const SESSION: Body = ("one_session_taken_twice", uploads::same_session);
const DIGEST: Body = ("one_digest_pushed_twice", uploads::same_digest);
const BOUND: Body = ("uploads_are_bounded", uploads::bound);
const CLOSE: Body = ("closing", ends::close);
const POISON: Body = ("poisoning", ends::poison);
const SEGMENTS: Body = ("retired_segments_go", segments::retire);

const ONE_THREAD: &[(Mutation, Body)] = &[
    (Mutation::PublishBeforeCommit, COMMITS),
    (Mutation::AnswerBeforePublish, COMMITS),
    (Mutation::NextFrameBeforeSync, COMMITS),
    (Mutation::StalePrecondition, COMMITS),
    (Mutation::PreconditionUnchecked, COMMITS),
    (Mutation::RefuseBeforeDurable, COMMITS),
    (Mutation::NoLeaseOnHead, LEASES),
    (Mutation::StaleBase, CHECKPOINTS),
    (Mutation::SyncErrorSwallowed, POISON),
    (Mutation::SyncTriedAgain, POISON),
    (Mutation::AbandonCommitted, DIGEST),
];

const BETWEEN_THREADS: &[(Race, Body)] = &[
    (Race::FreezeLoadsEarly, CHECKPOINTS),
    (Race::InstallLoadsEarly, CHECKPOINTS),
    (Race::PublishUnlocked, CHECKPOINTS),
    (Race::AnswerFirst, COMMITS),
    (Race::JudgedApart, COMMITS),
    (Race::CheckedEarly, CLOSE),
    (Race::CheckedEarly, POISON),
    (Race::ClosingApart, CLOSE),
    (Race::RoomBeforeListening, PRESSURE),
    (Race::PinDroppedApart, PINS),
    (Race::PromisedAtFirstLook, LEASES),
    (Race::FinishedApart, SESSION),
    (Race::UploadsCountedEarly, BOUND),
    (Race::IdTakenApart, DIGEST),
    (Race::RetiredUnlocked, SEGMENTS),
];

/// One row of the table; whether it was caught.
fn row(table: &mut String, name: &str, (body, run): Body) -> bool {
    let found = caught(SEEDS, run);
    let (seeds, what) = match &found {
        Some((seed, what)) => (seed.to_string(), what.lines().next().unwrap_or_default()),
        None => ("SURVIVED".to_owned(), ""),
    };
    writeln!(table, "| {name} | {body} | {seeds} | {what:.60} |").expect("writing to a string");
    found.is_some()
}

/// Guards: the tests of this directory themselves. Each known-bad change is caught.
#[test]
fn each_known_bad_change_is_caught() {
    let mut table = "| mutation | caught by | seeds | as |\n|---|---|---|---|\n".to_owned();
    let mut survivors = 0;
    for (mutation, body) in ONE_THREAD {
        probe::switch(Some(*mutation));
        survivors += usize::from(!row(&mut table, mutation.name(), *body));
        probe::switch(None);
    }
    for (race, body) in BETWEEN_THREADS {
        probe::switch_race(Some(*race));
        survivors += usize::from(!row(&mut table, race.name(), *body));
        probe::switch_race(None);
    }
    println!("{table}");
    let all = Race::ALL
        .iter()
        .all(|race| BETWEEN_THREADS.iter().any(|(tried, _)| tried == race));
    assert!(all, "a race has no body that is to catch it");
    assert_eq!(survivors, 0, "survivors:\n{table}");
}
