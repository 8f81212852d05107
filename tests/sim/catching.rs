//! The option `--catch`: the first violation ends the run and names its check. It is for an engine that is broken on
//! purpose (tests/mutants).

use std::process::{ExitCode, exit};

use tonnage_tests::model::census::Census;
use tonnage_tests::model::sweep::Depth;

use super::options::Options;
use super::runs::in_order;

/// The number of histories, unless the command line sets another.
const HISTORIES: u64 = 250;

/// One history in this many has killed processes: that doubles its time, and few faults need it.
const KILLS_EVERY: u64 = 5;

/// The exit status for a violation. Any other failure, such as a panic of the program, has another status.
const CAUGHT: i32 = 3;

/// Runs histories until one has a violation. Exits with status 3, or 0 if none has.
pub fn run(options: &Options) -> ExitCode {
    let mut census = Census::default();
    let seeds = options.seeds.unwrap_or(HISTORIES);
    let seeds = options.seed..options.seed.saturating_add(seeds);
    in_order(options.threads, seeds, depth, |_, (swept, failure)| {
        census.add(&swept);
        if let Some(failure) = failure {
            println!(
                "caught by \"{}\" after {} histories, {} recoveries\n{}",
                failure.violation.check,
                census.histories,
                census.recoveries,
                failure.violation.what
            );
            // Exits at once, because other threads are running later histories.
            exit(CAUGHT);
        }
        true
    });
    println!(
        "not caught in {} histories, {} recoveries",
        census.histories, census.recoveries
    );
    ExitCode::SUCCESS
}

fn depth(seed: u64) -> Depth {
    Depth {
        kills: seed % KILLS_EVERY == 1,
        ..Depth::default()
    }
}
