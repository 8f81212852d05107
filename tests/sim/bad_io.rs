//! The option `--bad-io`: runs the engine over known-bad I/O; each kind has to be caught.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use tonnage_tests::machine::bad_io::{self, BadIo};
use tonnage_tests::model::generate;
use tonnage_tests::model::sweep::{Depth, sweep};

use super::options::Options;

/// The number of histories after which known-bad I/O counts as not caught.
const HISTORIES: u64 = 250;
/// One history in this many has killed processes: that doubles its time, and few faults need it.
const KILLS_EVERY: u64 = 5;

/// The result for one kind.
struct Verdict {
    name: &'static str,
    caught: Option<&'static str>,
    histories: u64,
    images: u64,
}

/// Runs all kinds, or the one of this name. Prints which check caught each, after how many histories and images.
pub fn run(options: &Options, which: &str) -> ExitCode {
    let all: Vec<&BadIo> = match (which, bad_io::named(which)) {
        ("all", _) => bad_io::ALL.iter().collect(),
        (_, Some(one)) => vec![one],
        (_, None) => {
            let names: Vec<_> = bad_io::ALL.iter().map(|bad| bad.name).collect();
            eprintln!(
                "sim: {which} is no known-bad I/O; there are {}",
                names.join(", ")
            );
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    println!("| bad I/O | caught by | histories | images |\n|---|---|---|---|");
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let mut survivors = 0;
    std::thread::scope(|scope| {
        // One kind at a time on each thread: histories that run ahead are mostly not needed.
        for _ in 0..options.threads {
            let (send, next, all) = (send.clone(), &next, &all);
            scope.spawn(move || {
                while let Some(bad) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send(run_one(bad, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for fate in receive {
            survivors += u64::from(fate.caught.is_none());
            let by = fate.caught.unwrap_or("NOBODY");
            println!(
                "| {} | {by} | {} | {} |",
                fate.name, fate.histories, fate.images
            );
        }
    });
    println!(
        "bad I/O {} not caught {survivors} in {:.1} s",
        all.len(),
        began.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(survivors > 0))
}

fn run_one(bad: &'static BadIo, options: &Options) -> Verdict {
    let budget = options.seeds.unwrap_or(HISTORIES);
    let mut fate = Verdict {
        name: bad.name,
        caught: None,
        histories: 0,
        images: 0,
    };
    bad_io::switch(Some(bad));
    for seed in options.seed..options.seed.saturating_add(budget) {
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
    bad_io::switch(None);
    fate
}
