//! The option `--flips`: flips one bit in each byte of small stores, on several threads.
//!
//! Owns: the distribution of the bytes, and the table of outcomes by kind of file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tonnage_tests::model::flips::{Outcome, Specimen};

/// The number of bytes that a thread takes at a time.
const SHARE: usize = 256;

/// The outcomes for the bytes of one kind of file.
type Table = BTreeMap<(String, Outcome), u64>;

/// Flips every `step`-th byte of a closed store and of a killed one.
pub fn run(step: u64, threads: usize) -> ExitCode {
    let mut violations = 0;
    for closed in [true, false] {
        let began = Instant::now();
        let specimen = Specimen::new(closed);
        let (table, wrong) = every(&specimen, step, threads);
        println!(
            "{}",
            if closed {
                "a closed store"
            } else {
                "a stopped store"
            }
        );
        for ((kind, outcome), count) in &table {
            println!("  {count:>10}  {kind}: {outcome:?}");
        }
        for what in wrong.iter().take(20) {
            eprintln!("violation: {what}");
        }
        violations += wrong.len();
        let bytes: u64 = table.values().sum();
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "flipped bytes {bytes} step {step} violations {} in {seconds:.1} s",
            wrong.len()
        );
    }
    if violations == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn every(specimen: &Specimen, step: u64, threads: usize) -> (Table, Vec<String>) {
    let places: Vec<(PathBuf, u64)> = specimen
        .files()
        .into_iter()
        .flat_map(|(path, size)| {
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            (0..size).step_by(step).map(move |at| (path.clone(), at))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Table::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut table, mut wrong) = (Table::new(), Vec::new());
                loop {
                    let from = next.fetch_add(SHARE, Ordering::Relaxed);
                    let share = places.iter().skip(from).take(SHARE);
                    if share.len() == 0 {
                        break;
                    }
                    for (path, at) in share {
                        match specimen.flip(path, *at) {
                            Ok(outcome) => *table.entry((kind(path), outcome)).or_default() += 1,
                            Err(violation) => {
                                wrong.push(format!("{}: {}", violation.check, violation.what));
                            }
                        }
                    }
                }
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                for (key, count) in table {
                    *all.0.entry(key).or_default() += count;
                }
                all.1.extend(wrong);
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the kind of a file, by its name.
fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.extension() {
        Some(extension) if !name.starts_with("checkpoint.") => {
            extension.to_string_lossy().into_owned()
        }
        _ => name.split('.').next().unwrap_or_default().to_owned(),
    }
}
