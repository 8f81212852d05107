//! Runs mixed work for a long time, with clients that disconnect at any point, and records whether the server's
//! resources reach a plateau.
//!
//! Owns: the clients, the table of memory, descriptors and threads, and the check that no round fails. Refuses: limits
//! on the table; `docs/evidence.md` has the results. Contents are drawn from a fixed set, so that the disk does not
//! fill.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonnage_benches::digest_of;
use tonnage_benches::process;
use tonnage_benches::tonnage::Tonnage;
use tonnage_benches::wire::Wire;

/// Loads a server for a long time. A line of a table goes to stdout in each interval.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// The tonnage program; built by cargo when not given.
    #[arg(long, value_name = "PATH")]
    tonnage: Option<PathBuf>,
    /// Folder on the disk to use; a temporary folder is made in it.
    #[arg(long, value_name = "DIR", default_value = "target")]
    folder: PathBuf,
    /// How long, in seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Seconds between two lines of the table.
    #[arg(long, default_value_t = 300)]
    interval: u64,
    /// Milliseconds between two rounds of a client.
    #[arg(long, default_value_t = 50)]
    pace: u64,
}

/// Clients of each kind.
const CLIENTS: u64 = 4;
/// Large contents of all clients together.
const CONTENTS: u64 = 32;
const LARGE_BYTES: usize = 8 << 20;
/// The number of rounds after which a client disconnects in the middle of a body.
const LEAVES: u64 = 5;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Debug, Default)]
struct Counts {
    rounds: AtomicU64,
    left: AtomicU64,
    failed: AtomicU64,
}

fn main() -> ExitCode {
    tonnage_benches::run("soak", run(Options::parse()))
}

async fn run(options: Options) -> Result<(), String> {
    let (server, folder) = Tonnage::in_temporary(options.tonnage, &options.folder)?;
    let (stop, counts) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Counts::default()),
    );
    let clients: Vec<_> = (0..2 * CLIENTS)
        .map(|number| {
            let client = Client {
                number,
                address: server.address,
                counts: Arc::clone(&counts),
                pace: Duration::from_millis(options.pace),
            };
            tokio::spawn(client.work(Arc::clone(&stop)))
        })
        .collect();
    println!("| s | rounds | left | failed | RssAnon, MiB | descriptors | threads | store, MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    let began = Instant::now();
    for line in 1..=options.seconds.div_ceil(options.interval.max(1)) {
        let next = Duration::from_secs(line * options.interval);
        tokio::time::sleep(next.saturating_sub(began.elapsed())).await;
        let held = Resources::of(server.pid())?;
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            began.elapsed().as_secs(),
            counts.rounds.load(Ordering::Relaxed),
            counts.left.load(Ordering::Relaxed),
            counts.failed.load(Ordering::Relaxed),
            held.memory_kib >> 10,
            held.descriptors,
            held.threads,
            size_of(&folder.path().join("data")) >> 20,
        );
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.map_err(|e| format!("a client: {e}"))?;
    }
    match counts.failed.load(Ordering::Relaxed) {
        0 => Ok(()),
        failed => Err(format!("{failed} rounds failed")),
    }
}

/// The resources of a process.
struct Resources {
    memory_kib: u64,
    descriptors: usize,
    threads: usize,
}

impl Resources {
    fn of(pid: u32) -> Result<Self, String> {
        let read = |what: &str| format!("/proc/{pid}/{what}");
        let memory_kib = process::status_kib(pid, "RssAnon:").ok_or("no RssAnon in its status")?;
        let entries = |what: &str| fs::read_dir(read(what)).map(Iterator::count);
        Ok(Self {
            memory_kib,
            descriptors: entries("fd").map_err(|e| format!("read fd: {e}"))?,
            threads: entries("task").map_err(|e| format!("read task: {e}"))?,
        })
    }
}

/// Returns the bytes of all files below a folder.
fn size_of(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(there) if there.is_dir() => size_of(&entry.path()),
        Ok(there) => there.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[derive(Debug)]
struct Client {
    number: u64,
    address: SocketAddr,
    counts: Arc<Counts>,
    pace: Duration,
}

impl Client {
    async fn work(self, stop: Arc<AtomicBool>) {
        let mut wire = None;
        let mut said = 0;
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if round % LEAVES == LEAVES - 1 {
                drop(self.leave(round).await);
                self.counts.left.fetch_add(1, Ordering::Relaxed);
            }
            match self.round(&mut wire, round).await {
                Ok(()) => {
                    self.counts.rounds.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    wire = None;
                    said += 1;
                    if said <= 5 {
                        eprintln!("client {}, round {round}: {why}", self.number);
                    }
                }
            }
            tokio::time::sleep(self.pace).await;
        }
    }

    /// Pushes an image of one layer, large for half of the clients, pulls it, and deletes an older one.
    async fn round(&self, wire: &mut Option<Wire>, round: u64) -> Result<(), String> {
        let mut open = match wire.take() {
            Some(open) => open,
            None => Wire::connect(self.address).await?,
        };
        let repository = format!("soak/{}", self.number);
        let layer = self.layer(round);
        let digest = digest_of(&layer);
        let v2 = format!("/v2/{repository}");
        let uploads = format!("{v2}/blobs/uploads/");
        let begun = open.request("POST", &uploads, "", &[], |_| {}).await?;
        let begun = begun.expect(202, "begin an upload")?;
        let location = begun.header("location").ok_or("no Location")?.to_owned();
        let (first, rest) = layer.split_at(layer.len() / 2);
        let patched = open
            .request("PATCH", &location, "", &[first], |_| {})
            .await?;
        let patched = patched.expect(202, "send half of it")?;
        let location = patched.header("location").ok_or("no Location")?;
        let joint = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{joint}digest={digest}");
        let closed = open.request("PUT", &target, "", &[rest], |_| {}).await?;
        closed.expect(201, "send the rest")?;
        let descriptor = format!(
            r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":{}}}"#,
            layer.len()
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{descriptor},"layers":[{descriptor}],"annotations":{{"round":"{round}"}}}}"#
        );
        let tag = format!("{v2}/manifests/t{}", round % 8);
        let headers = format!("Content-Type: {MANIFEST}\r\n");
        let body = [manifest.as_bytes()];
        let put = open.request("PUT", &tag, &headers, &body, |_| {}).await?;
        put.expect(201, "push a manifest")?;
        let got = open.request("GET", &tag, "", &[], |_| {}).await?;
        got.expect(200, "pull a manifest")?;
        let mut pulled = Vec::with_capacity(layer.len());
        let blob = format!("{v2}/blobs/{digest}");
        let got = open
            .request("GET", &blob, "", &[], |piece| {
                pulled.extend_from_slice(piece)
            })
            .await?;
        got.expect(200, "pull a layer")?;
        if pulled != layer {
            return Err(format!("other bytes than those of {digest}"));
        }
        if round % 4 == 3 {
            let target = format!("{v2}/manifests/{}", digest_of(manifest.as_bytes()));
            let deleted = open.request("DELETE", &target, "", &[], |_| {}).await?;
            deleted.expect(202, "delete a manifest")?;
        }
        *wire = Some(open);
        Ok(())
    }

    /// Begins an upload or requests a layer, and disconnects in the middle. Also leaves an upload without bytes.
    async fn leave(&self, round: u64) -> Result<(), String> {
        let v2 = format!("/v2/soak/{}", self.number);
        let mut open = Wire::connect(self.address).await?;
        let uploads = format!("{v2}/blobs/uploads/");
        let begun = open.request("POST", &uploads, "", &[], |_| {}).await?;
        let begun = begun.expect(202, "begin an upload")?;
        let location = begun.header("location").ok_or("no Location")?.to_owned();
        drop(open);
        let stream = TcpStream::connect(self.address).await;
        let mut stream = stream.map_err(|e| format!("connect: {e}"))?;
        let layer = self.layer(round);
        let request = if round % (2 * LEAVES) < LEAVES {
            let head = format!(
                "PATCH {location} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
                self.address,
                layer.len()
            );
            [head.as_bytes(), &layer[..layer.len() / 2]].concat()
        } else {
            let blob = digest_of(&layer);
            let head = format!(
                "GET {v2}/blobs/{blob} HTTP/1.1\r\nHost: {}\r\n\r\n",
                self.address
            );
            head.into_bytes()
        };
        stream
            .write_all(&request)
            .await
            .map_err(|e| format!("send: {e}"))
    }

    /// Returns a layer: a new small content, or a large one from the fixed set.
    fn layer(&self, round: u64) -> Vec<u8> {
        let (seed, length) = if self.number < CLIENTS {
            (self.number << 32 | round, 1 << 10)
        } else {
            (u64::MAX - (self.number + round) % CONTENTS, LARGE_BYTES)
        };
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.take(length / 8).flatten().collect()
    }
}
