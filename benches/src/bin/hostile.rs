//! Measures latencies of regular clients next to hostile ones. Manifests are pulled and small blobs pushed at a steady
//! rate, first alone, then while thousands of connections hold as many resources as they can.
//!
//! Owns: the hostile clients, the figures, and the check that no request of a regular client fails. Refuses: limits on
//! the times; `docs/evidence.md` has the results.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tonnage_benches::digest_of;
use tonnage_benches::process;
use tonnage_benches::tonnage::Tonnage;
use tonnage_benches::wire::Wire;

/// Measures regular clients beside hostile ones. The table goes to stdout, everything else to stderr.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// The tonnage program; built by cargo when not given.
    #[arg(long, value_name = "PATH")]
    tonnage: Option<PathBuf>,
    /// Folder on the disk to measure; a temporary folder is made in it.
    #[arg(long, value_name = "DIR", default_value = "target")]
    folder: PathBuf,
    /// How long each part is measured, in seconds.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Connections that ask for a large blob and never read.
    #[arg(long, default_value_t = 2000)]
    unread: usize,
    /// Uploads whose body stops after its first MiB.
    #[arg(long, default_value_t = 200)]
    uploads: usize,
    /// Manifests of 4 MiB that are announced and never sent.
    #[arg(long, default_value_t = 16)]
    manifests: usize,
    /// Uploads that are begun and left, each on a connection that stays open.
    #[arg(long, default_value_t = 10_000)]
    posts: usize,
}

const LARGE_BYTES: usize = 64 << 20;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Regular clients of each kind, and the time between two requests of each.
const CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(20);
/// The time after which memory is read again once the hostile clients are gone.
const AFTER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    tonnage_benches::run("hostile", run(Options::parse()))
}

async fn run(options: Options) -> Result<(), String> {
    allow_many_files()?;
    let (server, _folder) = Tonnage::in_temporary(options.tonnage.clone(), &options.folder)?;
    let large = prepare(server.address).await?;
    let time = Duration::from_secs(options.seconds);
    measure(server.address, PACE * 20).await?;

    let alone = measure(server.address, time).await?;
    let before_kib = process::anonymous_kib(server.pid()).unwrap_or_default();
    let stop = Arc::new(AtomicBool::new(false));
    let peak = tokio::task::spawn_blocking({
        let (stop, pid) = (Arc::clone(&stop), server.pid());
        move || peak_kib(pid, &stop)
    });
    let began = Instant::now();
    let attack = attack(server.address, options.clone(), large);
    let hostile = tokio::spawn(on_a_thread(10, attack));
    let beside = measure(server.address, time).await?;
    let (held, answered) = hostile
        .await
        .map_err(|e| format!("the hostile clients: {e}"))??;
    stop.store(true, Ordering::Release);
    let peak_kib = peak.await.map_err(|e| format!("look at memory: {e}"))?;
    eprintln!(
        "hostile clients were there after {:?}; {answered} of {} posts were answered",
        began.elapsed(),
        options.posts
    );
    drop(held);
    tokio::time::sleep(AFTER).await;
    let after_kib = process::anonymous_kib(server.pid()).unwrap_or_default();

    println!("| | alone | beside | times |\n|---|---|---|---|");
    for (name, alone, beside) in [
        ("GET of a manifest", &alone.gets, &beside.gets),
        ("push of 1 KiB", &alone.pushes, &beside.pushes),
    ] {
        for (which, part) in [("median", 50), ("p99", 99), ("longest", 100)] {
            let (alone, beside) = (percentile(alone, part), percentile(beside, part));
            let times = beside.as_secs_f64() / alone.as_secs_f64();
            println!("| {name}, {which} | {alone:.1?} | {beside:.1?} | {times:.1} |");
        }
    }
    println!(
        "| requests, failed | {}, {} | {}, {} | |",
        alone.count(),
        alone.failed,
        beside.count(),
        beside.failed
    );
    println!(
        "| RssAnon, MiB | {} | {} at most, {} after {AFTER:?} | |",
        before_kib >> 10,
        peak_kib >> 10,
        after_kib >> 10
    );
    match alone.failed + beside.failed {
        0 => Ok(()),
        failed => Err(format!("{failed} requests of regular clients failed")),
    }
}

fn allow_many_files() -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let found = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: found.maximum,
        maximum: found.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|e| format!("raise the limit of open files: {e}"))
}

async fn push(wire: &mut Wire, bytes: &[u8]) -> Result<String, String> {
    let digest = digest_of(bytes);
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let answer = wire.request("POST", &target, "", &[bytes], |_| {}).await?;
    answer.expect(201, "a push")?;
    Ok(digest)
}

/// Pushes an image and the large blob, whose digest it returns.
async fn prepare(address: SocketAddr) -> Result<String, String> {
    let mut wire = Wire::connect(address).await?;
    let config = push(&mut wire, b"{}").await?;
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
    });
    let (text, headers) = (text.to_string(), format!("Content-Type: {MANIFEST}\r\n"));
    let pieces = [text.as_bytes()];
    let put = wire.request("PUT", "/v2/a/manifests/t", &headers, &pieces, |_| {});
    put.await?.expect(201, "a manifest")?;
    push(&mut wire, &vec![7; LARGE_BYTES]).await
}

/// The latencies that regular clients measured.
#[derive(Debug, Default)]
struct Seen {
    gets: Vec<Duration>,
    pushes: Vec<Duration>,
    failed: u64,
}

impl Seen {
    fn count(&self) -> usize {
        self.gets.len() + self.pushes.len()
    }
}

/// Runs clients on their own thread, so that regular clients do not wait for hostile ones. The hostile ones are `nice`,
/// so that the server does not wait for a processor.
async fn on_a_thread<T: Send + 'static>(
    nice: i32,
    clients: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let own = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("start a runtime: {e}"))?;
    let ended = tokio::task::spawn_blocking(move || {
        rustix::process::nice(nice).map_err(|e| format!("be nice: {e}"))?;
        Ok(own.block_on(clients))
    });
    ended.await.map_err(|e| format!("clients: {e}"))?
}

/// Returns the latencies that regular clients measure in this time.
async fn measure(address: SocketAddr, time: Duration) -> Result<Seen, String> {
    on_a_thread(0, regular(address, time)).await
}

async fn regular(address: SocketAddr, time: Duration) -> Seen {
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(async move { (true, repeat(address, time, number, true).await) });
        clients.spawn(async move { (false, repeat(address, time, number, false).await) });
    }
    let mut seen = Seen::default();
    while let Some(Ok((gets, (times, failed)))) = clients.join_next().await {
        if gets {
            seen.gets.extend(times);
        } else {
            seen.pushes.extend(times);
        }
        seen.failed += failed;
    }
    seen.gets.sort_unstable();
    seen.pushes.sort_unstable();
    seen
}

/// Runs one regular client: a request at every beat. A closed connection is opened again within the measured time.
async fn repeat(
    address: SocketAddr,
    time: Duration,
    number: usize,
    gets: bool,
) -> (Vec<Duration>, u64) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (mut times, mut failed, mut wire) = (Vec::new(), 0, None);
    let mut beats = tokio::time::interval(PACE);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let began = Instant::now();
    while began.elapsed() < time {
        beats.tick().await;
        let mut content = vec![0; 1 << 10];
        content[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let asked = Instant::now();
        let mut done = false;
        for _attempt in 0..3 {
            let mut at = match wire.take() {
                Some(wire) => wire,
                None => match Wire::connect(address).await {
                    Ok(wire) => wire,
                    Err(_) => continue,
                },
            };
            let outcome = if gets {
                let get = at.request("GET", "/v2/a/manifests/t", "", &[], |_| {});
                get.await
                    .and_then(|answer| answer.expect(200, "a pull"))
                    .map(drop)
            } else {
                push(&mut at, &content).await.map(drop)
            };
            match outcome {
                Ok(()) => {
                    wire = Some(at);
                    done = true;
                    break;
                }
                Err(why) => eprintln!("client {number}: {why}"),
            }
        }
        failed += u64::from(!done);
        times.push(asked.elapsed());
    }
    (times, failed)
}

fn percentile(sorted: &[Duration], part: usize) -> Duration {
    let place = (sorted.len() * part).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// Runs all hostile clients at once. Returns their connections, and how many POSTs were answered.
async fn attack(address: SocketAddr, options: Options, large: String) -> (Vec<TcpStream>, usize) {
    let mut clients = JoinSet::new();
    let get = format!("GET /v2/a/blobs/{large} HTTP/1.1\r\nHost: x\r\n\r\n");
    let announced = format!(
        "PUT /v2/a/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nContent-Length: {}\r\n\r\n",
        4 << 20
    );
    for _ in 0..options.unread {
        clients.spawn(say(address, get.clone().into_bytes(), false));
    }
    for _ in 0..options.manifests {
        clients.spawn(say(address, announced.clone().into_bytes(), false));
    }
    for number in 0..options.uploads {
        let digest = digest_of(&number.to_le_bytes());
        let mut sent = format!(
            "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
        )
        .into_bytes();
        sent.resize(sent.len() + (1 << 20), 1);
        clients.spawn(say(address, sent, false));
    }
    let post = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..options.posts {
        clients.spawn(say(address, post.to_vec(), true));
    }
    let (mut held, mut answered) = (Vec::new(), 0);
    while let Some(ended) = clients.join_next().await {
        if let Ok(Some((stream, was_answered))) = ended {
            held.push(stream);
            answered += usize::from(was_answered);
        }
    }
    (held, answered)
}

/// Sends `bytes` and, if it `waits`, reads the beginning of the answer.
async fn say(address: SocketAddr, bytes: Vec<u8>, waits: bool) -> Option<(TcpStream, bool)> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    let mut stream = socket.connect(address).await.ok()?;
    // A connection that the server has closed meanwhile counts too.
    let sent = stream.write_all(&bytes).await.is_ok();
    let answered = waits
        && sent
        && stream
            .read(&mut [0; 512])
            .await
            .is_ok_and(|count| count > 0);
    Some((stream, answered))
}

/// Returns the highest `RssAnon` until `stop`.
fn peak_kib(pid: u32, stop: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !stop.load(Ordering::Acquire) {
        peak = peak.max(process::anonymous_kib(pid).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(50));
    }
    peak
}
