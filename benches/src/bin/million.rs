//! Measures filling, checkpoints and starts of a store of millions of blobs with links, edges and names.
//!
//! `cargo run --release -p tonnage-benches --bin million -- DIR [BLOBS]` fills a new store in `DIR` through the
//! engine's own push path (one manifest, nine blobs and a tag at a time, 64 writers). It prints one line of JSON for
//! each step: filling, for each million; a checkpoint under load (its peak memory, the bytes it writes, the longest
//! commit meanwhile); a start after the filling process was killed during its work; a start after a clean stop; a start
//! from the journal alone (runs and checkpoints deleted).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tonnage_benches::images::{BLOBS_PER_IMAGE, Result, peak_rss, push_images, rss_anon_mib};
use tonnage_engine::{Options, Store};
use tonnage_server::runtime;

/// The last line of a filling process.
const READY: &str = "ready to be killed";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let fills = arguments.next_if(|first| first == "--fill").is_some();
    let dir = arguments.next().filter(|first| !first.starts_with('-'));
    let dir = PathBuf::from(dir.ok_or("usage: million DIR [BLOBS]")?);
    let blobs = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse::<u64>())?;
    if fills {
        return fill(&dir, blobs).await;
    }
    fill_and_kill(&dir, blobs)?;
    start(&dir, "start after kill -9").await?;
    start(&dir, "start after a clean stop").await?;
    for name in ["checkpoint.0", "checkpoint.1", "checkpoint.2"] {
        remove(&dir.join(name))?;
    }
    for entry in std::fs::read_dir(dir.join("runs"))? {
        std::fs::remove_file(entry?.path())?;
    }
    start(&dir, "start from the journal alone").await
}

/// Fills the store in another process, which is killed while it pushes.
fn fill_and_kill(dir: &Path, blobs: u64) -> Result<()> {
    let mut filling = Command::new(std::env::current_exe()?)
        .arg("--fill")
        .arg(dir)
        .arg(blobs.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(filling.stdout.take().ok_or("no stdout")?).lines();
    let mut ready = false;
    for line in lines {
        let line = line?;
        ready = line == READY;
        if ready {
            filling.kill()?;
            break;
        }
        println!("{line}");
    }
    filling.wait()?;
    if ready {
        Ok(())
    } else {
        Err("the filling process ended early".into())
    }
}

/// Fills a new store and continues to push until it is killed.
async fn fill(dir: &Path, blobs: u64) -> Result<()> {
    let (store, _) = Store::open(runtime::env()?, dir, Options::default()).await?;
    let images = blobs / BLOBS_PER_IMAGE;
    let step = (1_000_000 / BLOBS_PER_IMAGE).min(images).max(1);
    let began = Instant::now();
    let mut done = 0;
    while done < images {
        let (count, step_began) = (step.min(images - done), Instant::now());
        let longest = push_images(&store, done, count, None).await?;
        done += count;
        let (took, runs) = (step_began.elapsed(), store.stats().await?.runs);
        let written = runs.flushed_bytes + runs.merged_bytes;
        println!(
            "{{\"step\":\"fill\",\"blobs\":{},\"seconds\":{:.1},\"blobs_per_second\":{:.0},\"commit_max_ms\":{:.1},\"rss_anon_mib\":{},\"runs\":{},\"run_bytes\":{},\"flushed_bytes\":{},\"merged_bytes\":{},\"written_per_flushed_byte\":{:.2}}}",
            done * BLOBS_PER_IMAGE,
            began.elapsed().as_secs_f64(),
            (count * BLOBS_PER_IMAGE) as f64 / took.as_secs_f64(),
            longest.as_secs_f64() * 1e3,
            rss_anon_mib()?,
            runs.runs,
            runs.bytes,
            runs.flushed_bytes,
            runs.merged_bytes,
            written as f64 / runs.flushed_bytes.max(1) as f64,
        );
    }
    checkpoint_under_load(&store, images).await?;
    println!("{READY}");
    let next = images * 2;
    push_images(&store, next, u64::MAX / 2, None).await?;
    Ok(())
}

/// Writes a checkpoint while the writers continue, and prints memory, bytes and the longest commit.
async fn checkpoint_under_load(store: &Store, images: u64) -> Result<()> {
    let share = (images / 20).max(100);
    push_images(store, images, share, None).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let (load, sampler) = (store.clone(), tokio::spawn(peak_rss(Arc::clone(&stop))));
    let flag = Arc::clone(&stop);
    let before = rss_anon_mib()?;
    let pushing =
        tokio::spawn(
            async move { push_images(&load, images + share, u64::MAX / 2, Some(flag)).await },
        );
    let began = Instant::now();
    let report = store.checkpoint().await?;
    let took = began.elapsed();
    stop.store(true, Ordering::Release);
    let longest = pushing.await??;
    let peak = sampler.await?;
    println!(
        "{{\"step\":\"checkpoint under load\",\"seconds\":{:.2},\"bytes_written\":{},\"rss_anon_before_mib\":{before},\"rss_anon_peak_mib\":{peak},\"longest_push_ms\":{:.1}}}",
        took.as_secs_f64(),
        report.bytes_written,
        longest.as_secs_f64() * 1e3
    );
    Ok(())
}

async fn start(dir: &Path, step: &str) -> Result<()> {
    let began = Instant::now();
    let (store, report) = Store::open(runtime::env()?, dir, Options::default()).await?;
    let took = began.elapsed();
    println!(
        "{{\"step\":\"{step}\",\"seconds\":{:.3},\"transactions_replayed\":{},\"rss_anon_mib\":{}}}",
        took.as_secs_f64(),
        report.replayed,
        rss_anon_mib()?
    );
    store.close().await?;
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
