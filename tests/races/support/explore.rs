//! Many schedules of one body, and the replay of a failed one.
//!
//! Owns: [`explore`] and the number of schedules. Refuses: to stop at the first run without a failure.
//!
//! Each seed gives one random schedule, in which all choices are equally likely, and a batch of PCT schedules, which
//! have few switches at unlikely positions; the first of a batch only measures the length. A failed seed is printed and
//! replays the same schedules.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// PCT schedules of one seed; a replay runs all up to the failed one.
const PCT_BATCH: usize = 10;
/// Switches in a PCT schedule.
const PCT_DEPTH: usize = 4;
/// More steps than any schedule needs. A longer one counts as an endless loop.
const STEPS_MAX: usize = 2_000_000;

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    // A schedule is tens of thousands of choices, so a failure prints its seed instead.
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    config
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// Returns the factor for the number of seeds: `TONNAGE_TEST_RACES`, else 10 under `TONNAGE_TEST_FULL`.
fn scale() -> u64 {
    let full = std::env::var_os("TONNAGE_TEST_FULL").is_some();
    number("TONNAGE_TEST_RACES").unwrap_or(if full { 10 } else { 1 })
}

fn run(seed: u64, body: fn()) {
    Runner::new(RandomScheduler::new_from_seed(seed, 1), config()).run(body);
    let pct = PctScheduler::new_from_seed(seed, PCT_DEPTH, PCT_BATCH);
    Runner::new(pct, config()).run(body);
}

/// Runs `body` under the schedules of `seeds` seeds, times the factor, or of the one seed to replay.
pub fn explore(name: &str, seeds: u64, body: fn()) {
    let seeds = match number("TONNAGE_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("TONNAGE_TEST_FIRST_SEED").unwrap_or(1);
            first..first + number("TONNAGE_TEST_SEEDS").unwrap_or(seeds * scale())
        }
    };
    let count = seeds.end - seeds.start;
    for seed in seeds {
        if let Err(failure) = catch_unwind(AssertUnwindSafe(|| run(seed, body))) {
            eprintln!(
                "schedules of seed {seed} failed; to replay: \
                 TONNAGE_TEST_SEED={seed} cargo test -p tonnage-races --features shuttle {name}"
            );
            resume_unwind(failure);
        }
    }
    println!("{name}: {} schedules", count * (1 + PCT_BATCH as u64));
}
