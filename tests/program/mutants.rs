//! Known-bad engines: each has to be caught.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use tonnage_engine::probe::{self, Mutation};
use tonnage_tests::model::generate;
use tonnage_tests::model::sweep::{Depth, sweep};

use super::options::Options;

/// Histories that a known-bad engine may survive before it counts as not caught: the standard budget.
const HISTORIES: u64 = 250;

/// One history in so many has processes killed.
const KILLS_EVERY: u64 = 5;

/// The mutation of this name.
pub fn named(name: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL
        .iter()
        .find(|mutation| mutation.name() == name);
    found
        .copied()
        .ok_or_else(|| format!("{name} is not a mutation; see --list-mutations"))
}

/// How a known-bad engine fared.
struct Fate {
    mutation: Mutation,
    caught: Option<&'static str>,
    histories: u64,
    images: u64,
}

/// Runs all of them and prints which check caught each, after how many histories and images.
pub fn run_all(options: &Options, only: Option<Mutation>) -> ExitCode {
    let all = only.map_or(Mutation::ALL.to_vec(), |only| vec![only]);
    let began = Instant::now();
    println!("| mutation | caught by | histories | images |\n|---|---|---|---|");
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let mut survivors = 0;
    std::thread::scope(|scope| {
        // One at a time on each thread: whoever runs the histories of one ahead runs most of them for nothing.
        for _ in 0..options.threads {
            let (send, next, all) = (send.clone(), &next, &all);
            scope.spawn(move || {
                while let Some(mutation) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send(run_one(*mutation, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for fate in receive {
            survivors += u64::from(fate.caught.is_none());
            let (name, by) = (fate.mutation.name(), fate.caught.unwrap_or("NOBODY"));
            println!("| {name} | {by} | {} | {} |", fate.histories, fate.images);
        }
    });
    println!(
        "mutations {} survivors {survivors} in {:.1} s",
        all.len(),
        began.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(survivors > 0))
}

fn run_one(mutation: Mutation, options: &Options) -> Fate {
    let budget = options.seeds.unwrap_or(HISTORIES);
    let mut fate = Fate {
        mutation,
        caught: None,
        histories: 0,
        images: 0,
    };
    probe::switch(Some(mutation));
    for seed in options.seed..options.seed.saturating_add(budget) {
        // Some are shown by kills alone, which double the time that every history takes.
        let depth = Depth {
            kills: seed % KILLS_EVERY == 1,
            ..Depth::default()
        };
        let swept = sweep(&generate::generate(seed), depth);
        fate.histories += 1;
        fate.images += swept.census.recoveries;
        fate.caught = swept.failure.map(|failure| failure.violation.check);
        if fate.caught.is_some() {
            break;
        }
    }
    probe::switch(None);
    fate
}
