//! What runs beside the clients: admin commands, and stops of a process.
//!
//! Owns: [`COMMANDS`], each run again and again, and [`Stops`]. Their pace is the number of requests of clients, so
//! that a run has a certain number of them. Refuses: a command that fails, whatever happens at the same time.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use tonnage_tests::process::program;

use crate::history::Event;
use crate::world::World;

/// An admin command that is run on the open store.
#[derive(Debug)]
pub struct Job {
    /// The command with its options.
    pub arguments: &'static [&'static str],
    /// Requests of clients between two runs.
    pub each: u64,
}

/// All of them.
pub const COMMANDS: &[Job] = &[
    Job {
        arguments: &["collect"],
        each: 150,
    },
    Job {
        arguments: &["collect", "--full"],
        each: 1000,
    },
    Job {
        arguments: &["scrub"],
        each: 2000,
    },
];

/// Held while `collect` runs: the server rejects a second one that is asked for something else.
static COLLECT: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// What the runs of a command did together.
#[derive(Debug, Default)]
pub struct Done {
    /// Runs that succeeded.
    pub runs: AtomicU64,
    /// Blobs that the runs of `collect` removed.
    pub blobs: AtomicU64,
    /// Segments that they unlinked.
    pub segments: AtomicU64,
    /// Blobs that they moved out of segments with much garbage.
    pub moved: AtomicU64,
}

/// Runs a command until the run is over. `actor` is its place in the history.
pub fn repeat(world: &World, actor: usize, job: &Job, done: &Done) {
    let mut next = job.each;
    while world.wait_for(next) {
        next = world.events() + job.each;
        let alone = (job.arguments[0] == "collect").then(|| COLLECT.lock());
        let sent = Instant::now();
        let found = run(world, job.arguments);
        drop(alone);
        world.history.add(
            actor,
            Event {
                sent,
                answered: Instant::now(),
                what: job.arguments[0],
                repository: String::new(),
                digest: String::new(),
                status: u16::from(found.is_err()),
            },
        );
        match found {
            Ok(found) => {
                let count = |key: &str| found[key].as_u64().unwrap_or_default();
                done.runs.fetch_add(1, Ordering::Relaxed);
                done.blobs.fetch_add(count("blobs"), Ordering::Relaxed);
                done.segments
                    .fetch_add(count("segments"), Ordering::Relaxed);
                let moved = found["compaction"]["blobs"].as_u64().unwrap_or_default();
                done.moved.fetch_add(moved, Ordering::Relaxed);
            }
            Err(why) => return world.fail(actor, "", why),
        }
    }
}

/// Runs an admin command, which must succeed. Returns its JSON.
pub fn run(world: &World, arguments: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(program()?);
    command.args(arguments).arg("--json").arg("--data");
    command.arg(&world.data).stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|e| format!("run {arguments:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{arguments:?}: {}: {said}{stderr}", output.status));
    }
    serde_json::from_str(&said).map_err(|e| format!("{arguments:?}: {e}: {said}"))
}

/// The process that is stopped again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stops {
    /// None.
    None,
    /// The server.
    Server(Pid),
    /// This process, with all clients.
    Clients,
}

impl Stops {
    /// Stops the process for `time`, `count` times in the course of `events` requests. Returns how often it did.
    pub fn run(
        self,
        world: &World,
        events: u64,
        count: u64,
        time: Duration,
    ) -> Result<u64, String> {
        let mut stops = 0;
        while self != Self::None && stops < count {
            if !world.wait_for(events * (stops + 1) / (count + 2)) {
                break;
            }
            match self {
                Self::Server(pid) => stop_server(world, pid, time)?,
                _ => stop_clients(time)?,
            }
            stops += 1;
        }
        Ok(stops)
    }
}

/// Sends SIGSTOP to the server. It is certain that it does not run until SIGCONT, so this time counts for no grace.
fn stop_server(world: &World, pid: Pid, time: Duration) -> Result<(), String> {
    kill_process(pid, Signal::STOP).map_err(|e| format!("send SIGSTOP: {e}"))?;
    waitpid(Some(pid), WaitOptions::UNTRACED).map_err(|e| format!("wait for the stop: {e}"))?;
    world.time.stopped();
    // The length of the stop, not a wait for an event.
    std::thread::sleep(time);
    world.time.will_continue();
    kill_process(pid, Signal::CONT).map_err(|e| format!("send SIGCONT: {e}"))
}

/// Stops this process by another one, which continues it.
fn stop_clients(time: Duration) -> Result<(), String> {
    let script = "kill -STOP $0; sleep $1; kill -CONT $0";
    let (own, seconds) = (std::process::id().to_string(), time.as_secs().to_string());
    let begin = Instant::now();
    let status = Command::new("sh")
        .args(["-c", script, &own, &seconds])
        .status()
        .map_err(|e| format!("run sh: {e}"))?;
    match status.success() && begin.elapsed() >= time {
        true => Ok(()),
        false => Err(format!("the clients were not stopped: {status}")),
    }
}
