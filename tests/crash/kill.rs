//! Concurrent pushers, and a `kill -9` in the middle of their work.
//!
//! Owns: [`rounds`], for any [`Disk`]. Refuses: a kill by the clock. It comes after a number of acknowledged operations
//! that the seed chooses, wherever the other pushers are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tonnage_tests::content::{Content, Seeded};
use tonnage_tests::http::{Connection, Ended, LastByte};
use tonnage_tests::mount::SmallDisk;
use tonnage_tests::process::{Server, folder};
use tonnage_tests::push::Pusher;
use tonnage_tests::{say, uring};

use crate::lane::{fsck, number, seed};
use crate::ledger::Ledger;
use crate::work::{Kind, operation};

const PUSHERS: u64 = 6;
const KIND: Kind = Kind {
    huge: true,
    unreadable: false,
};
/// The number of rounds of a store; then the next one begins in an empty directory. This limits the disk space of the
/// test.
const ROUNDS_A_STORE: u64 = 10;

/// The disk of a test: the one that cargo builds on, or a loop device.
#[derive(Debug)]
pub enum Disk {
    Own,
    Small(&'static str, SmallDisk),
}

impl Disk {
    fn name(&self) -> &str {
        match self {
            Self::Own => "on the disk of the build",
            Self::Small(name, _) => name,
        }
    }
}

/// Returns the number of rounds: 5, or 50 in full runs, or `TONNAGE_TEST_KILL_ROUNDS`. On a loop device it is 0, or 10
/// in full runs, or a sixth of `TONNAGE_TEST_KILL_ROUNDS`.
pub fn wanted(own_disk: bool) -> Result<u64, String> {
    let asked = number("TONNAGE_TEST_KILL_ROUNDS")?;
    Ok(match (asked, own_disk) {
        (Some(rounds), true) => rounds,
        (Some(rounds), false) => rounds / 6,
        (None, true) if say::full() => 50,
        (None, true) => 5,
        (None, false) if say::full() => 10,
        (None, false) => 0,
    })
}

/// Kills and checks `rounds` times.
pub fn rounds(disk: &Disk, rounds: u64) -> Result<(), String> {
    let (seed, name) = (seed()?, disk.name());
    say::print_line(&format!(
        "kill -9 {name}: {rounds} rounds, TONNAGE_TEST_SEED={seed}"
    ));
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    let mut choices = Seeded::new(seed);
    let mut left = rounds;
    for store in 0_u64.. {
        if left == 0 {
            break;
        }
        let now = left.min(ROUNDS_A_STORE).min(rounds.div_ceil(2));
        one_store(&runtime, disk, &mut choices, now, store).map_err(|why| {
            format!("{name}, TONNAGE_TEST_SEED={seed}, {left} rounds before the end: {why}")
        })?;
        left -= now;
    }
    say::print_line(&format!("kill -9 {name}: passed {rounds} rounds"));
    Ok(())
}

fn one_store(
    runtime: &tokio::runtime::Runtime,
    disk: &Disk,
    choices: &mut Seeded,
    rounds: u64,
    store: u64,
) -> Result<(), String> {
    // Both backends, with and without collection.
    let mut options = uring::backend(store + store / 2);
    say::print_line(&format!("store {store}: {}", options.join(" ")));
    let collects = !store.is_multiple_of(2);
    if collects {
        options.extend(collecting());
    }
    let folder = match disk {
        Disk::Own => folder()?,
        Disk::Small(_, disk) => tempfile::tempdir_in(disk.path())
            .map_err(|e| format!("create a folder in {}: {e}", disk.path().display()))?,
    };
    let data = folder.path().join("data");
    let mut server = Server::start_as(&data, &folder.path().join("log"), &[], options)?;
    // One more than there are pushers: the last one belongs to the long upload.
    let ledger = |_| Ledger {
        collects,
        ..Ledger::default()
    };
    let mut ledgers: Vec<Ledger> = (0..=PUSHERS).map(ledger).collect();
    for round in 0..rounds {
        let work = push_until_killed(server, ledgers, choices);
        (server, ledgers) = runtime.block_on(work)?;
        fsck(&data, "after kill -9")?;
        server.restart()?;
        let checked = check_all(&server, &mut ledgers);
        let found = runtime
            .block_on(checked)
            .map_err(|why| format!("round {round}: {why}\nserver log:\n{}", server.log()))?;
        say::print_line(&format!("round {round}: {found}"));
    }
    let status = server.stop()?;
    if !status.success() {
        return Err(format!(
            "after SIGTERM the server ended with {status}:\n{}",
            server.log()
        ));
    }
    fsck(&data, "after a clean stop")
}

/// Options under which blobs that no manifest names go at once, and their space with them.
pub fn collecting() -> Vec<String> {
    [
        "--collection-grace",
        "1s",
        "--storage-shared-segment-size",
        "16MiB",
    ]
    .map(str::to_owned)
    .to_vec()
}

async fn check_all(server: &Server, ledgers: &mut [Ledger]) -> Result<String, String> {
    let (mut blobs, mut manifests, mut deleted, mut uploads, mut bytes) = (0, 0, 0, 0, 0);
    for (number, ledger) in (0..).zip(ledgers) {
        let client = Connection::connect(server.address()).await?;
        ledger
            .check(&mut Pusher::new(client, &repository(number)))
            .await?;
        blobs += ledger.blobs.len() + ledger.mounted.len();
        deleted += ledger.deleted.len() + ledger.deleted_blobs.len();
        manifests += ledger.manifests.len();
        uploads += ledger.resumed.0;
        bytes += ledger.resumed.1;
    }
    Ok(format!(
        "{blobs} blobs and {manifests} manifests are whole, {deleted} deleted ones are gone; so far \
         {uploads} uploads were finished after a restart, {} MiB of them kept",
        bytes >> 20
    ))
}

fn repository(number: u64) -> String {
    format!("crash/pusher-{number}")
}

/// The state that the pushers of one round share.
#[derive(Debug, Default)]
struct Round {
    acknowledged: AtomicU64,
    target: u64,
    reached: Notify,
    /// The number of bytes that the long upload must have sent before the kill.
    long_target: u64,
    long_reached: Notify,
    killed: AtomicBool,
}

impl Round {
    /// Ends the wait for the kill after an early failure.
    fn end_early(&self) {
        self.reached.notify_one();
        self.long_reached.notify_one();
    }
}

async fn push_until_killed(
    mut server: Server,
    mut ledgers: Vec<Ledger>,
    choices: &mut Seeded,
) -> Result<(Server, Vec<Ledger>), String> {
    // About every third one is well past an upload checkpoint (64 MiB) at the kill, so that it can be resumed.
    let long_target = match choices.between(0, 3) {
        0 => 1 << 20,
        1 => 9 << 20,
        _ => 130 << 20,
    };
    let target = choices.between(1, 120);
    let round = Arc::new(Round {
        target,
        long_target,
        ..Round::default()
    });
    let long = ledgers.pop().ok_or("no ledger for the long upload")?;
    let pusher = Pusher::new(
        Connection::connect(server.address()).await?,
        &repository(PUSHERS),
    );
    let content = Content::new(choices.bits(), long_target + (26 << 20));
    let long = tokio::spawn(push_long(pusher, long, content, Arc::clone(&round)));
    let mut pushers = Vec::new();
    for (number, ledger) in (0..).zip(ledgers) {
        let client = Connection::connect(server.address()).await?;
        let pusher = Pusher::new(client, &repository(number));
        let (own, round) = (Seeded::new(choices.bits()), Arc::clone(&round));
        pushers.push(tokio::spawn(push(pusher, ledger, own, round)));
    }
    round.reached.notified().await;
    round.long_reached.notified().await;
    round.killed.store(true, Ordering::SeqCst);
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    });
    let server = server.await.map_err(|e| format!("kill the server: {e}"))?;
    let mut ledgers = Vec::new();
    for pusher in pushers.into_iter().chain([long]) {
        let ended = pusher.await.map_err(|e| format!("a pusher ended: {e}"))?;
        ledgers.push(ended.map_err(|why| format!("{why}\nserver log:\n{}", server.log()))?);
    }
    Ok((server, ledgers))
}

/// Pushes until the connection breaks, which must not happen before the kill.
async fn push(
    mut pusher: Pusher,
    mut ledger: Ledger,
    mut choices: Seeded,
    round: Arc<Round>,
) -> Result<Ledger, String> {
    let mut result = pusher.empty_json().await;
    while result.is_ok() {
        let count = round.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        if count == round.target {
            round.reached.notify_one();
        }
        result = operation(&mut pusher, &mut ledger, &mut choices, KIND).await;
    }
    // Only a kill breaks connections, so only that failure is allowed.
    if round.killed.load(Ordering::SeqCst) && pusher.client.ended() == Ended::Broken {
        return Ok(ledger);
    }
    round.end_early();
    Err(format!(
        "failed before the kill: {}",
        result.err().unwrap_or_default()
    ))
}

/// Sends one upload chunk by chunk and never closes it.
async fn push_long(
    mut pusher: Pusher,
    mut ledger: Ledger,
    content: Content,
    round: Arc<Round>,
) -> Result<Ledger, String> {
    let result = send_long(&mut pusher, &mut ledger, content, &round).await;
    let killed = round.killed.load(Ordering::SeqCst) && pusher.client.ended() == Ended::Broken;
    if result.is_ok() || killed {
        return Ok(ledger);
    }
    round.end_early();
    result
        .map(|()| ledger)
        .map_err(|why| format!("the long upload failed before the kill: {why}"))
}

async fn send_long(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    content: Content,
    round: &Round,
) -> Result<(), String> {
    const CHUNK: u64 = 3 << 20;
    let at = pusher.open_upload().await?;
    let (at, _) = ledger.unfinished.insert((at, content));
    let mut sent = 0;
    while sent < content.length {
        let end = (sent + CHUNK).min(content.length);
        pusher
            .chunks(at, content, sent..end, CHUNK, &LastByte::default())
            .await?;
        if sent < round.long_target && end >= round.long_target {
            round.long_reached.notify_one();
        }
        sent = end;
    }
    Ok(())
}
