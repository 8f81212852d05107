//! Memory under load: eight concurrent pushes and eight pulls, 2 GiB each in full runs (32 MiB otherwise), while the
//! server's own memory is sampled ten times a second.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tonnage_tests::content::Content;
use tonnage_tests::http::Connection;
use tonnage_tests::process::{Server, free_bytes};
use tonnage_tests::push::{Pusher, Shape};
use tonnage_tests::say;

const STREAMS: u64 = 8;
const PLAIN: u64 = 32 << 20;
const FULL: u64 = 2 << 30;
/// The limit of `RssAnon + RssShmem`, in KiB.
const LIMIT_KIB: u64 = 256 << 10;

/// Guards: memory does not grow with the size or the number of active bodies: every buffer of a push or a pull comes
/// from a budget.
#[test]
fn eight_pushes_and_eight_pulls_stay_within_256_mib() {
    let server = Server::start().unwrap();
    let length = length(server.data());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sampler = std::thread::spawn({
        let (stop, pid) = (Arc::clone(&stop), server.pid());
        move || peak_kib(pid, &stop)
    });
    // Before anything connects, because the server waits only briefly for the head of a request.
    let pulled = Content::new(0xb10b, length);
    let pulled_digest = pulled.digest();
    let pushed: Vec<_> = (0..STREAMS)
        .map(|number| Content::new(0x9054 + number, length))
        .map(|content| (content, content.digest()))
        .collect();
    runtime.block_on(async {
        push(
            server.address(),
            "pulled",
            pulled,
            &pulled_digest,
            Shape::Monolithic,
        )
        .await
        .unwrap();
        let failures = Arc::new(AtomicU64::new(0));
        let mut streams = tokio::task::JoinSet::new();
        for (number, (content, digest)) in pushed.into_iter().enumerate() {
            let address = server.address();
            let shape = if number % 2 == 0 {
                Shape::Monolithic
            } else {
                Shape::Streamed
            };
            streams.spawn(async move { push(address, "pushed", content, &digest, shape).await });
            let path = format!("/v2/pulled/blobs/{pulled_digest}");
            streams.spawn(async move {
                let mut client = Connection::connect(address).await?;
                match client.get_compare(&path, pulled).await? {
                    true => Ok(()),
                    false => Err("a pull returned other bytes".to_owned()),
                }
            });
        }
        while let Some(ended) = streams.join_next().await {
            if let Err(why) = ended.unwrap() {
                failures.fetch_add(1, Ordering::Relaxed);
                println!("{why}");
            }
        }
        assert_eq!(failures.load(Ordering::Relaxed), 0, "{}", server.log());
    });
    stop.store(true, Ordering::Release);
    let (peak, samples) = sampler.join().unwrap();
    say::print_line(&format!(
        "peak RssAnon + RssShmem {} MiB in {samples} samples, {STREAMS} pushes and {STREAMS} pulls of {} MiB",
        peak >> 10,
        length >> 20
    ));
    assert!(
        samples > 0 && peak > 0,
        "the server's memory was never sampled"
    );
    assert!(peak < LIMIT_KIB, "{peak} KiB");
}

async fn push(
    address: SocketAddr,
    repository: &str,
    content: Content,
    digest: &str,
    shape: Shape,
) -> Result<(), String> {
    let client = Connection::connect(address).await?;
    Pusher::new(client, repository)
        .blob(content, digest, shape)
        .await
        .map(drop)
}

fn length(data: &Path) -> u64 {
    if !say::full() {
        return PLAIN;
    }
    let (free, needed) = (free_bytes(data).unwrap(), (STREAMS + 2) * FULL);
    if free >= needed {
        return FULL;
    }
    let why = format!(
        "{} GiB are free and {} are needed",
        free >> 30,
        needed >> 30
    );
    say::skipped("2 GiB a stream (32 MiB instead)", &why);
    PLAIN
}

/// Returns the highest sample until `stop`, and the number of samples.
fn peak_kib(pid: u32, stop: &AtomicBool) -> (u64, u64) {
    let (mut peak, mut samples) = (0, 0);
    while !stop.load(Ordering::Acquire) {
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
            peak = peak.max(field(&status, "RssAnon:") + field(&status, "RssShmem:"));
            samples += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    (peak, samples)
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default()
}
