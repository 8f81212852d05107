//! Many clients on one server that collects garbage all the time, with the shortest grace that there is.
//!
//! Owns: the tests, and the check of the store at their ends. `client` has what a client does, `ledger` what it was
//! promised, `actors` what runs beside the clients. Refuses: sleeping as a way to wait. The seed is printed; with
//! `TONNAGE_TEST_SEED` clients make the same choices, as far as the same answers arrive.

mod actors; // admin commands and stops
mod client; // what a client does when
mod deletions; // requests that remove
mod history; // what happened last
mod ledger; // what a client was promised
mod pulls; // requests that read
mod pushes; // requests that add
mod time; // the time of the server
mod world; // what all clients share

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Pid;
use serde_json::Value;
use tonnage_tests::content::Seeded;
use tonnage_tests::process::{Server, program};
use tonnage_tests::say;

use actors::{COMMANDS, Done, Stops};
use client::Client;
use world::{SPILL_KIB, World};

const CLIENTS: usize = 16;
const GRACE: Duration = Duration::from_secs(1);
/// Longer than the grace, whatever the server counts of it.
const STOP: Duration = Duration::from_secs(3);
/// Requests of a run without `TONNAGE_TEST_SOAK_EVENTS`.
const EVENTS: u64 = 6000;
/// Requests for each stop of a process.
const EVENTS_A_STOP: u64 = 2000;
/// Longer than this, the end of the last grace does not take on any machine.
const SETTLE_BOUND: Duration = Duration::from_mins(2);
/// Most bytes of a record beside its payload: frame, checksums and padding (FORMAT.md, "Records").
const RECORD_BYTES: u64 = 512;
/// Lines of the server's log that a violation shows.
const LOG_LINES: usize = 60;

/// Only one of the tests runs at a time: one stops this process.
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Guards: DURABILITY.md, "How long it stays", with everything at once: pushes, pulls, checks, mounts, moved tags and
/// deletions, of repositories too, while collection and checkpoints run. No push that got its 201s lacks a blob, no
/// pull returns wrong or short bytes, and at the end exactly what is referenced is stored, whole.
#[test]
fn promises_hold_while_everything_is_collected() {
    soak("soak", |_| Stops::None, 1);
}

/// Guards: the same, while the server is stopped for longer than the grace in the middle of pushes. That time does not
/// count for the grace.
#[test]
fn promises_hold_over_stops_of_the_server() {
    let server = |server: &Server| {
        let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw);
        Stops::Server(pid.expect("a process"))
    };
    soak("soak, server stopped", server, 3);
}

/// Guards: the same, while all clients are stopped for longer than the grace in the middle of pushes. Uploads continue
/// where they were, every manifest that got its 201 is whole, and a push whose blobs were collected is told so.
#[test]
fn promises_hold_over_stops_of_the_clients() {
    soak("soak, clients stopped", |_| Stops::Clients, 3);
}

fn soak(name: &str, stops: impl Fn(&Server) -> Stops, part: u64) {
    let _alone = ALONE.lock();
    let seed = setting("TONNAGE_TEST_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_secs())
    });
    let events = setting("TONNAGE_TEST_SOAK_EVENTS").unwrap_or(EVENTS) / part;
    say::print_line(&format!(
        "{name}: {events} requests, TONNAGE_TEST_SEED={seed}"
    ));
    let spill = format!("{SPILL_KIB} KiB");
    let options = [
        ("--collection-grace", "1s"),
        ("--storage-delta-budget", "1 MiB"),
        ("--storage-shared-segment-size", "16 MiB"),
        ("--storage-spill-threshold", &spill),
    ];
    let options: Vec<_> = options
        .iter()
        .flat_map(|(key, value)| [*key, *value])
        .collect();
    let mut server = Server::start_with(&options).unwrap_or_else(|why| panic!("{why}"));
    let world = Arc::new(World::new(&server, CLIENTS, seed, GRACE));
    let summary = run(&world, stops(&server), seed, events)
        .and_then(|summary| check_end(&world, &mut server).map(|end| summary + &end));
    match summary {
        Ok(summary) => say::print_line(&format!("{name}: {summary}")),
        Err(why) => {
            let log = server.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            panic!("{name}: TONNAGE_TEST_SEED={seed}: {why}\nserver log:\n{tail}");
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|e| panic!("{name}={value}: {e}")),
    )
}

/// Runs all clients and what is beside them for so many requests.
fn run(world: &Arc<World>, stops: Stops, seed: u64, events: u64) -> Result<String, String> {
    let begin = Instant::now();
    let mut choices = Seeded::new(seed);
    let done: Vec<_> = COMMANDS.iter().map(|_| Done::default()).collect();
    let mut stopped = Ok(0);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (seed, world) = (choices.bits(), Arc::clone(world));
            scope.spawn(move || {
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    work(&world, number, seed);
                }));
                if caught.is_err() {
                    world.fail(number, "", "the client panicked".to_owned());
                }
            });
        }
        for (job, done) in COMMANDS.iter().zip(&done) {
            scope.spawn(move || actors::repeat(world, CLIENTS, job, done));
        }
        stopped = stops.run(world, events, (events / EVENTS_A_STOP).max(1), STOP);
        if stopped.is_ok() {
            world.wait_for(events);
            let cycles = setting("TONNAGE_TEST_SOAK_CYCLES").unwrap_or_default();
            while collections(&done) < cycles && world.wait_for(world.events() + EVENTS_A_STOP) {}
        }
        world.end();
    });
    if let Some(why) = world.failure() {
        return Err(why);
    }
    let stopped = stopped?;
    if stops != Stops::None && stopped == 0 {
        return Err("nothing was stopped: the run tests nothing".to_owned());
    }
    Ok(summary(world, &done, stopped, begin.elapsed()))
}

/// Returns how many cycles of collection the commands have run.
fn collections(done: &[Done]) -> u64 {
    let jobs = COMMANDS.iter().zip(done);
    let collecting = jobs.filter(|(job, _)| job.arguments.starts_with(&["collect"]));
    collecting
        .map(|(_, done)| done.runs.load(Ordering::Relaxed))
        .sum()
}

/// Runs a client on a runtime of its own.
fn work(world: &Arc<World>, number: usize, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let worked = runtime
        .map_err(|e| format!("start a runtime: {e}"))
        .and_then(|runtime| {
            runtime.block_on(async {
                Client::connect(world, number, seed).await?.work().await;
                Ok(())
            })
        });
    if let Err(why) = worked {
        world.fail(number, "", why);
    }
}

fn summary(world: &World, done: &[Done], stopped: u64, time: Duration) -> String {
    let (counts, events) = (&world.counts, world.events());
    let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let jobs = COMMANDS.iter().zip(done).map(|(job, done)| {
        let (runs, blobs, segments) = (get(&done.runs), get(&done.blobs), get(&done.segments));
        let (name, moved) = (job.arguments.join(" "), get(&done.moved));
        format!("{runs} times {name} ({blobs} blobs, {segments} segments, {moved} moved)")
    });
    format!(
        "{events} requests in {} s, {} a second; {}; {stopped} stops; {} requests relied on a promise alone, {} of them \
         on one that a stop extended; {} promises had ended, {} manifests were pushed again after that; {} pulls met a \
         deletion; no promise was broken",
        time.as_secs(),
        events / time.as_secs().max(1),
        jobs.collect::<Vec<_>>().join(", "),
        get(&counts.promised),
        get(&counts.held_by_stops),
        get(&counts.lapsed),
        get(&counts.repeated),
        get(&counts.deleted),
    )
}

/// Waits until grace is over for everything. Then exactly what is referenced must be stored, and `fsck --deep` of the
/// stopped store has no findings.
fn check_end(world: &World, server: &mut Server) -> Result<String, String> {
    let begin = Instant::now();
    loop {
        let found = actors::run(world, &["collect"])?;
        if found["in_grace"] == 0 && found["leased"] == 0 && found["suspects"] == 0 {
            break;
        }
        if begin.elapsed() > SETTLE_BOUND {
            return Err(format!("garbage was not collected: {found}"));
        }
    }
    let stats = actors::run(world, &["stats"])?;
    let (blobs, bytes) = world.live();
    let stored = (&stats["blobs"], &stats["blob_bytes"], &stats["uploads"]);
    if stored != (&Value::from(blobs), &Value::from(bytes), &Value::from(0)) {
        return Err(format!(
            "{blobs} blobs of {bytes} bytes are referenced: {stats}"
        ));
    }
    let full = actors::run(world, &["collect", "--full"])?;
    let background = server.log().matches("segments were compacted").count();
    let status = server.stop()?;
    if !status.success() {
        return Err(format!("after SIGTERM: {status}"));
    }
    let disk = segment_bytes(&world.data)?;
    let most = bytes + bytes / 20 + RECORD_BYTES * blobs as u64;
    if disk > most {
        return Err(format!(
            "segments take {disk} bytes, {bytes} of them in {blobs} live blobs; at most {most} are allowed: {full}"
        ));
    }
    let output = Command::new(program()?)
        .args(["fsck", "--deep", "--data"])
        .arg(&world.data)
        .output()
        .map_err(|e| format!("run fsck: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("fsck --deep: {}: {said}{stderr}", output.status));
    }
    Ok(format!(
        "; compaction ran {background} times in the background; {blobs} blobs of {bytes} bytes stayed, in segments of \
         {disk} bytes; fsck --deep is clean"
    ))
}

/// Returns the bytes that segments take on the disk.
fn segment_bytes(data: &Path) -> Result<u64, String> {
    let list = || {
        let mut bytes = 0;
        for entry in fs::read_dir(data.join("segments"))? {
            bytes += entry?.metadata()?.blocks() * 512;
        }
        Ok::<_, std::io::Error>(bytes)
    };
    list().map_err(|e| format!("list the segments of {}: {e}", data.display()))
}
