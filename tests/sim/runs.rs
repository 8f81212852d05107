//! Runs histories on several threads, in the order of their seeds.
//!
//! Owns: which seeds are run, and when the run ends. Results are counted in the order of seeds, so that counts and the
//! first violation do not depend on the number of threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Instant;

use tonnage_tests::model::census::Census;
use tonnage_tests::model::generate;
use tonnage_tests::model::shrink;
use tonnage_tests::model::sweep::{Depth, Failure, sweep};

use super::options::Options;
use super::tables;

/// The number of sweeps that shrinking may use.
const SHRINK_ATTEMPTS: usize = 150;

/// Does what the options request.
pub fn run(options: &Options) -> ExitCode {
    let began = Instant::now();
    let mut state = match options.state.as_deref().map(State::load).transpose() {
        Ok(state) => state.unwrap_or(State::new(options.seed)),
        Err(why) => {
            eprintln!("sim: {why}");
            return ExitCode::from(2);
        }
    };
    let mut census = Census::default();
    let mut failed = None;
    let seeds = options.seeds.unwrap_or(if options.images.is_some() {
        u64::MAX
    } else {
        1
    });
    let first = state.next_seed;
    let last = first.saturating_add(seeds);
    let depth = Depth {
        one_in: options.one_in,
        ..Depth::default()
    };
    in_order(
        options.threads,
        first..last,
        |_| depth,
        |seed, swept| {
            census.add(&swept.0);
            // The next run starts with a failed seed again.
            if swept.1.is_none() {
                state.add(seed, &swept.0);
            }
            if let Some(path) = &options.state
                && let Err(error) = state.save(path)
            {
                eprintln!("sim: {}: {error}", path.display());
            }
            if let Some(failure) = swept.1 {
                failed = Some((seed, failure));
                return false;
            }
            options.images.is_none_or(|wanted| state.images < wanted)
        },
    );
    if options.tables {
        tables::print(&census);
    }
    let violations = u64::from(failed.is_some());
    println!(
        "histories {} operations {} crash points {} images {} distinct {} recoveries {} cut openings {} \
         kills {} damaged stores {} stray writes {} violations {violations} seeds {first}..={} in {:.1} s",
        census.histories,
        census.operations,
        census.points,
        census.images,
        census.distinct,
        census.recoveries,
        census.cut_openings,
        census.killed,
        census.damaged,
        census.strays,
        state.next_seed.saturating_sub(1),
        began.elapsed().as_secs_f64()
    );
    if options.state.is_some() {
        println!(
            "in all: histories {} distinct crash images {} recoveries {}",
            state.histories, state.images, state.recoveries
        );
    }
    let Some((seed, failure)) = failed else {
        let rare = census.rare_call_sites(options.call_sites);
        if rare.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "reached fewer than {} times: {}",
            options.call_sites,
            rare.join(", ")
        );
        return ExitCode::FAILURE;
    };
    report(seed, failure, depth);
    ExitCode::FAILURE
}

/// Prints a violation: how to replay it, and the shortest history that has it.
fn report(seed: u64, failure: Failure, depth: Depth) {
    let say = |failure: &Failure| {
        eprintln!(
            "violation of \"{}\" in life {}, {}:\n{}",
            failure.violation.check, failure.life, failure.stop, failure.violation.what
        );
    };
    eprintln!(
        "seed {seed}; replay with: cargo run --release -p tonnage-tests --bin sim -- --seed {seed} --one-in {}",
        depth.one_in
    );
    say(&failure);
    eprintln!("shrinking ...");
    let history = generate::generate(seed);
    let (short, failure) = shrink::shrink(&history, failure, depth, SHRINK_ATTEMPTS);
    eprintln!("{}", shrink::describe(&short));
    say(&failure);
    eprintln!("last operations of the disk:\n{}", failure.log);
}

pub type Outcome = (Census, Option<Failure>);

/// Sweeps seeds on `threads` threads. Passes the results to `take` in the order of the seeds, until it returns that the
/// run ends.
pub fn in_order(
    threads: usize,
    seeds: std::ops::Range<u64>,
    depth: impl Fn(u64) -> Depth + Sync,
    mut take: impl FnMut(u64, Outcome) -> bool,
) {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let enough = std::sync::atomic::AtomicBool::new(false);
    let (send, receive) = mpsc::sync_channel::<(u64, Outcome)>(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (send, next, enough, depth) = (send.clone(), &next, &enough, &depth);
            scope.spawn(move || {
                while !enough.load(std::sync::atomic::Ordering::Relaxed) {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let swept = sweep(&generate::generate(seed), depth(seed));
                    if send.send((seed, (swept.census, swept.failure))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut early = BTreeMap::new();
        let mut due = seeds.start;
        while let Ok((seed, outcome)) = receive.recv() {
            early.insert(seed, outcome);
            while let Some(outcome) = early.remove(&due) {
                if !enough.load(std::sync::atomic::Ordering::Relaxed) && !take(due, outcome) {
                    enough.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                due += 1;
            }
        }
    });
}

/// The progress of a run that another one continues.
#[derive(Debug)]
struct State {
    next_seed: u64,
    histories: u64,
    images: u64,
    recoveries: u64,
}

impl State {
    fn new(next_seed: u64) -> Self {
        Self {
            next_seed,
            histories: 0,
            images: 0,
            recoveries: 0,
        }
    }

    fn load(path: &Path) -> Result<Self, String> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::new(1));
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let mut state = Self::new(1);
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            let value = value
                .parse()
                .map_err(|_| format!("{}: {line} is not a number", path.display()))?;
            match name {
                "next_seed" => state.next_seed = value,
                "histories" => state.histories = value,
                "distinct_images" => state.images = value,
                "recoveries" => state.recoveries = value,
                _ => return Err(format!("{}: {name} is unknown", path.display())),
            }
        }
        Ok(state)
    }

    fn add(&mut self, seed: u64, census: &Census) {
        self.next_seed = seed + 1;
        self.histories += census.histories;
        self.images += census.distinct;
        self.recoveries += census.recoveries;
    }

    /// Writes the file as a whole or not at all, because a run may be killed at any time.
    fn save(&self, path: &Path) -> std::io::Result<()> {
        let text = format!(
            "next_seed {}\nhistories {}\ndistinct_images {}\nrecoveries {}\n",
            self.next_seed, self.histories, self.images, self.recoveries
        );
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(new, path)
    }
}
