//! Known-bad engines: each has to be caught.

use std::process::ExitCode;
use std::time::Instant;

use tonnage_engine::probe::Mutation;

use super::options::Options;
use super::runs::in_order;

/// Histories that a known-bad engine may survive before it counts as not caught: the standard budget.
const HISTORIES: u64 = 250;

/// The mutation of this name.
pub fn named(name: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL
        .iter()
        .find(|mutation| mutation.name() == name);
    found
        .copied()
        .ok_or_else(|| format!("{name} is not a mutation; see --list-mutations"))
}

/// Runs all of them and prints which check caught each, after how many histories and images.
pub fn run_all(options: &Options) -> ExitCode {
    let (began, first) = (Instant::now(), options.seed);
    let budget = options.seeds.unwrap_or(HISTORIES);
    let mut survivors = 0;
    println!("| mutation | caught by | histories | images |\n|---|---|---|---|");
    let wanted = |mutation: &&Mutation| {
        let name = options.mutation.as_deref();
        name.is_none_or(|name| name == mutation.name())
    };
    for mutation in Mutation::ALL.iter().filter(wanted) {
        let (mut caught, mut histories, mut images) = (None, 0_u64, 0_u64);
        let seeds = first..first.saturating_add(budget);
        in_order(
            options.threads,
            Some(*mutation),
            seeds,
            |_, (census, failure)| {
                histories += 1;
                images += census.recoveries;
                caught = failure.map(|failure| failure.violation.check);
                caught.is_none()
            },
        );
        survivors += u64::from(caught.is_none());
        let by = caught.unwrap_or("NOBODY");
        println!("| {} | {by} | {histories} | {images} |", mutation.name());
    }
    println!(
        "mutations {} survivors {survivors} in {:.1} s",
        Mutation::ALL.len(),
        began.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(survivors > 0))
}
