//! Many schedules of one body, and what replays one that failed.
//!
//! Owns: [`explore`] and how many schedules there are. Refuses: stopping at the first quiet run.
//!
//! Each seed gives one schedule drawn at random (every choice even) and a batch of PCT's (few switches, at places that are hard to
//! meet otherwise; its first only measures the length). A seed that failed is printed and replays the same two.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// PCT schedules of one seed: a replay runs all up to the one that failed.
const PCT_BATCH: usize = 10;
/// Switches that PCT places.
const PCT_DEPTH: usize = 4;
/// More steps than any schedule needs: beyond, something goes round in circles.
const STEPS_MAX: usize = 2_000_000;

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    // A schedule is tens of thousands of choices; its seed is a number.
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    config
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// How often the usual number of seeds: `TONNAGE_TEST_RACES` times, else 10 times under `TONNAGE_TEST_FULL`.
fn scale() -> u64 {
    let full = std::env::var_os("TONNAGE_TEST_FULL").is_some();
    number("TONNAGE_TEST_RACES").unwrap_or(if full { 10 } else { 1 })
}

fn run(seed: u64, body: fn()) {
    Runner::new(RandomScheduler::new_from_seed(seed, 1), config()).run(body);
    let pct = PctScheduler::new_from_seed(seed, PCT_DEPTH, PCT_BATCH);
    Runner::new(pct, config()).run(body);
}

/// Runs `body` under the schedules of `seeds` seeds, or more where more is asked for, or of the one that is to be replayed.
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
                "schedules of seed {seed} failed; again: TONNAGE_TEST_SEED={seed} cargo test -p tonnage-races --features shuttle {name}"
            );
            resume_unwind(failure);
        }
    }
    println!("{name}: {} schedules", count * (1 + PCT_BATCH as u64));
}
