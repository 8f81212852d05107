//! The load client: a process of its own, with one blocking thread for each connection.
//!
//! Owns: the order of work, its times. The runner starts it with [`run`]; it is the hidden subcommand `load`.
//! Refuses: work in the timed part that can be done before (content of blobs, digests).

pub mod http;
pub mod job;
mod queues;
mod work;

pub use self::work::{REPOSITORY, blob_path, manifest, put_manifest};

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use self::http::Connection;
use self::job::{Job, Outcome, Until};
use self::work::{Prepared, Record};

/// A load client that runs.
#[derive(Debug)]
pub struct Running(Child);

/// Starts a load client.
pub fn start(job: &Job) -> Result<Running, String> {
    let doing = |e: &dyn std::fmt::Display| format!("start the load client: {e}");
    let own = std::env::current_exe().map_err(|e| doing(&e))?;
    let mut command = Command::new(own);
    command
        .arg("load")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| doing(&e))?;
    let text = serde_json::to_vec(job).map_err(|e| doing(&e))?;
    let mut pipe = child.stdin.take().ok_or("no pipe to the load client")?;
    pipe.write_all(&text).map_err(|e| doing(&e))?;
    Ok(Running(child))
}

impl Running {
    /// Waits for its end.
    pub fn finish(self) -> Result<Outcome, String> {
        let output = self.0.wait_with_output();
        let output = output.map_err(|e| format!("wait for the load client: {e}"))?;
        if !output.status.success() {
            return Err("the load client failed; see above".into());
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("the load client's result: {e}"))
    }
}

/// Runs a load in its own process.
pub fn run(job: &Job) -> Result<Outcome, String> {
    start(job)?.finish()
}

/// The subcommand: reads a job from stdin, writes its outcome to stdout.
pub fn main() -> Result<(), String> {
    crate::machine::pin(crate::machine::Side::Client)?;
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|e| format!("read the job: {e}"))?;
    let job: Job = serde_json::from_str(&text).map_err(|e| format!("parse the job: {e}"))?;
    let outcome = perform(&job)?;
    let text = serde_json::to_string(&outcome).map_err(|e| format!("write the outcome: {e}"))?;
    println!("{text}");
    Ok(())
}

/// What the threads share.
struct Shared<'a> {
    job: &'a Job,
    prepared: Prepared<'a>,
    next: AtomicU64,
    failed: AtomicBool,
    barrier: Barrier,
}

fn perform(job: &Job) -> Result<Outcome, String> {
    let shared = Shared {
        job,
        prepared: Prepared::of(&job.work),
        next: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        barrier: Barrier::new(job.connections + 1),
    };
    let (seconds, results) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.connections)
            .map(|_| scope.spawn(|| one_connection(&shared)))
            .collect();
        shared.barrier.wait();
        let begin = Instant::now();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        (begin.elapsed().as_secs_f64(), results)
    });
    let (mut records, mut cipher) = (Vec::new(), None);
    for result in results {
        let (of_one, its_cipher) = result.map_err(|_| "a thread of the client panicked")??;
        records.extend(of_one);
        cipher = its_cipher;
    }
    Ok(summary(seconds, &records, cipher))
}

type OfOne = (Vec<Record>, Option<String>);

fn one_connection(shared: &Shared) -> Result<OfOne, String> {
    let connection = Connection::open(&shared.job.endpoint);
    shared.barrier.wait();
    let work = || {
        let (mut connection, mut records) = (connection?, Vec::new());
        let begin = Instant::now();
        while !shared.failed.load(Ordering::Relaxed) {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            if ended(&shared.job.until, number, begin) {
                break;
            }
            records.push(shared.prepared.one(&mut connection, number)?);
        }
        Ok((records, connection.cipher()))
    };
    let done = work();
    if done.is_err() {
        shared.failed.store(true, Ordering::Relaxed);
    }
    done
}

fn ended(until: &Until, number: u64, begin: Instant) -> bool {
    match until {
        Until::Count(count) => number >= *count,
        Until::Seconds(seconds) => begin.elapsed().as_secs_f64() >= *seconds,
        Until::Exists(path) => path.exists(),
    }
}

fn summary(seconds: f64, records: &[Record], cipher: Option<String>) -> Outcome {
    let sorted = |of: &dyn Fn(&Record) -> Option<f64>| {
        let mut values: Vec<f64> = records.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let times = sorted(&|record| Some(record.seconds * 1e3));
    let tails = sorted(&|record| record.tail_seconds.map(|seconds| seconds * 1e3));
    let unread = sorted(&|record| record.unread_bytes.map(|bytes| bytes as f64 / 1024.0));
    Outcome {
        seconds,
        units: records.len() as u64,
        bytes: records.iter().map(|record| record.bytes).sum(),
        p50_ms: quantile(&times, 50).unwrap_or_default(),
        p99_ms: quantile(&times, 99).unwrap_or_default(),
        max_ms: quantile(&times, 100).unwrap_or_default(),
        tail_ms: quantile(&tails, 50),
        unread_p50_kib: quantile(&unread, 50),
        unread_max_kib: quantile(&unread, 100),
        cipher,
    }
}

/// Returns the value that `percent` of the sorted values do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}
