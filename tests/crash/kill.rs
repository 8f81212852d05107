//! Concurrent pushers, and a `kill -9` in the middle of what they do.
//!
//! Owns: [`rounds`]. Refuses: a kill by the clock: it comes after a number of acknowledged operations that the seed chooses,
//! while the other pushers are wherever they are.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use tokio::sync::Notify;
use tonnage_tests::content::{Content, Seeded, digest_of_bytes};
use tonnage_tests::http::{Client, LastByte};
use tonnage_tests::process::{Server, folder, program};
use tonnage_tests::push::{Pusher, Shape};
use tonnage_tests::say;

use crate::ledger::Ledger;

const PUSHERS: u64 = 6;
/// A store serves this many rounds, then the next one begins with an empty folder: bounds the disk this lane takes.
const ROUNDS_A_STORE: u64 = 10;

/// As many rounds as asked for: 5, or 50 in full runs, or `TONNAGE_TEST_KILL_ROUNDS`.
pub fn rounds() -> Result<(), String> {
    let rounds = number("TONNAGE_TEST_KILL_ROUNDS")?.unwrap_or(if say::full() { 50 } else { 5 });
    let seed = match number("TONNAGE_TEST_SEED")? {
        Some(seed) => seed,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    };
    say::aloud(&format!(
        "kill -9: {rounds} rounds, TONNAGE_TEST_SEED={seed}"
    ));
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    let mut choices = Seeded::new(seed);
    let mut left = rounds;
    while left > 0 {
        let now = left.min(ROUNDS_A_STORE);
        one_store(&runtime, &mut choices, now).map_err(|why| {
            format!("TONNAGE_TEST_SEED={seed}, {left} rounds before the end: {why}")
        })?;
        left -= now;
    }
    Ok(())
}

fn number(name: &str) -> Result<Option<u64>, String> {
    let Ok(value) = std::env::var(name) else {
        return Ok(None);
    };
    value
        .parse()
        .map(Some)
        .map_err(|e| format!("{name}={value}: {e}"))
}

fn one_store(
    runtime: &tokio::runtime::Runtime,
    choices: &mut Seeded,
    rounds: u64,
) -> Result<(), String> {
    let folder = folder()?;
    let data = folder.path().join("data");
    let mut server = Server::start_on(&data, &folder.path().join("log"), &[])?;
    // One more than pushers: the last one is of the long upload.
    let mut ledgers: Vec<Ledger> = (0..=PUSHERS).map(|_| Ledger::default()).collect();
    for round in 0..rounds {
        let work = push_until_killed(server, ledgers, choices);
        (server, ledgers) = runtime.block_on(work)?;
        fsck(&data, "after kill -9")?;
        server.restart()?;
        let checked = check_all(&server, &mut ledgers);
        let found = runtime
            .block_on(checked)
            .map_err(|why| format!("round {round}: {why}\nserver log:\n{}", server.log()))?;
        say::aloud(&format!("round {round}: {found}"));
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

fn fsck(data: &Path, when: &str) -> Result<(), String> {
    let mut command = Command::new(program()?);
    command
        .arg("fsck")
        .arg("--data")
        .arg(data)
        .arg("--json")
        .stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("run fsck: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("fsck {when}: {}: {said}{complaint}", output.status));
    }
    let report: Result<serde_json::Value, _> = serde_json::from_str(&said);
    report
        .map(drop)
        .map_err(|e| format!("fsck {when} printed no JSON ({e}): {said}"))
}

async fn check_all(server: &Server, ledgers: &mut [Ledger]) -> Result<String, String> {
    let (mut blobs, mut manifests, mut uploads, mut bytes) = (0, 0, 0, 0);
    for (number, ledger) in (0..).zip(ledgers) {
        let client = Client::connect(server.address()).await?;
        ledger
            .check(&mut Pusher::new(client, &repository(number)))
            .await?;
        blobs += ledger.blobs.len();
        manifests += ledger.manifests.len();
        uploads += ledger.resumed.0;
        bytes += ledger.resumed.1;
    }
    Ok(format!(
        "{blobs} blobs and {manifests} manifests are whole; so far {uploads} uploads were finished after a \
         restart, {} MiB of them kept",
        bytes >> 20
    ))
}

fn repository(number: u64) -> String {
    format!("crash/pusher-{number}")
}

/// What the pushers of one round share.
#[derive(Debug, Default)]
struct Round {
    acknowledged: AtomicU64,
    target: u64,
    reached: Notify,
    /// Bytes that the long upload must have sent before the kill.
    long_target: u64,
    long_reached: Notify,
    killed: AtomicBool,
}

impl Round {
    /// A failure before the kill must not leave the kill waiting.
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
    // About every third one is well past an upload checkpoint (64 MiB) when the kill comes: it resumes instead of being unknown.
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
        Client::connect(server.address()).await?,
        &repository(PUSHERS),
    );
    let content = Content::new(choices.bits(), long_target + (26 << 20));
    let long = tokio::spawn(push_long(pusher, long, content, Arc::clone(&round)));
    let mut pushers = Vec::new();
    for (number, ledger) in (0..).zip(ledgers) {
        let client = Client::connect(server.address()).await?;
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
        result = operation(&mut pusher, &mut ledger, &mut choices).await;
    }
    if round.killed.load(Ordering::SeqCst) {
        return Ok(ledger);
    }
    round.end_early();
    Err(format!(
        "before the kill: {}",
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
    if result.is_ok() || round.killed.load(Ordering::SeqCst) {
        return Ok(ledger);
    }
    round.end_early();
    result
        .map(|()| ledger)
        .map_err(|why| format!("long upload, before the kill: {why}"))
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

/// One operation. The ledger is written before it as what may happen, and after its answer as what did.
async fn operation(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    match choices.between(0, 100) {
        0..45 => push_blob(pusher, ledger, choices).await,
        45..70 => push_manifest(pusher, ledger, choices).await,
        70..85 => move_tag(pusher, ledger, choices).await,
        85..93 => delete_tag(pusher, ledger, choices).await,
        _ => delete_manifest(pusher, ledger, choices).await,
    }
}

async fn push_blob(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let length = match choices.between(0, 64) {
        0 => choices.between(65 << 20, 80 << 20),
        1..6 => choices.between(8 << 20, 12 << 20),
        6..12 => choices.between(60_000, 1 << 20),
        // The Range of an upload's status says the same of one byte and of none.
        _ => choices.between(16, 20_000),
    };
    let shape = match choices.between(0, 3) {
        0 => Shape::Monolithic,
        1 => Shape::Streamed,
        _ => Shape::Chunked(choices.between(length / 5 + 2, length + 3)),
    };
    let content = Content::new(choices.bits(), length);
    let digest = content.digest();
    let at = pusher.open_upload().await?;
    let (at, _) = ledger.unfinished.insert((at, content));
    pusher.send_blob(at, content, &digest, shape).await?;
    ledger.unfinished = None;
    ledger.blobs.push((content, digest));
    Ok(())
}

async fn push_manifest(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let layers: Vec<_> = (0..choices.between(0, 4))
        .filter_map(|_| pick(&ledger.blobs, choices))
        .map(|(content, digest)| (digest.clone(), content.length))
        .collect();
    let bytes = Pusher::manifest(&layers, choices.bits());
    let digest = digest_of_bytes(&bytes);
    ledger.doubtful.push(bytes.clone());
    if choices.between(0, 3) == 0 {
        pusher.put_manifest(&digest, &bytes).await?;
    } else {
        put_tag(pusher, ledger, choices, &bytes).await?;
    }
    ledger.doubtful.pop();
    ledger.manifests.push(bytes);
    Ok(())
}

async fn move_tag(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let Some(bytes) = pick(&ledger.manifests, choices).cloned() else {
        return Ok(());
    };
    put_tag(pusher, ledger, choices, &bytes).await
}

async fn put_tag(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
    bytes: &[u8],
) -> Result<(), String> {
    let digest = Some(digest_of_bytes(bytes));
    let tag = ledger.tag(&format!("t{}", choices.between(0, 5)));
    tag.in_flight = Some(digest.clone());
    pusher.put_manifest(&tag.name, bytes).await?;
    tag.in_flight = None;
    tag.settled = digest;
    Ok(())
}

async fn delete_tag(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let tag = ledger.tag(&format!("t{}", choices.between(0, 5)));
    if tag.settled.is_none() {
        return Ok(());
    }
    tag.in_flight = Some(None);
    let answer = pusher.delete_manifest(&tag.name).await?;
    answer.expect(StatusCode::ACCEPTED, &format!("DELETE of tag {}", tag.name))?;
    tag.in_flight = None;
    tag.settled = None;
    Ok(())
}

/// A manifest's delete takes its tags with it.
async fn delete_manifest(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    if ledger.manifests.is_empty() {
        return Ok(());
    }
    let at = choices.between(0, ledger.manifests.len() as u64);
    let bytes = ledger
        .manifests
        .swap_remove(usize::try_from(at).expect("an index"));
    let digest = digest_of_bytes(&bytes);
    ledger.doubtful.push(bytes);
    let mut tags: Vec<_> = ledger.tags.iter_mut().collect();
    tags.retain(|tag| tag.settled.as_ref() == Some(&digest));
    for tag in &mut tags {
        tag.in_flight = Some(None);
    }
    let answer = pusher.delete_manifest(&digest).await?;
    answer.expect(
        StatusCode::ACCEPTED,
        &format!("DELETE of manifest {digest}"),
    )?;
    for tag in tags {
        tag.in_flight = None;
        tag.settled = None;
    }
    ledger.doubtful.pop();
    ledger.deleted.push(digest);
    Ok(())
}

fn pick<'a, T>(from: &'a [T], choices: &mut Seeded) -> Option<&'a T> {
    if from.is_empty() {
        return None;
    }
    let at = choices.between(0, from.len() as u64);
    from.get(usize::try_from(at).expect("an index"))
}
