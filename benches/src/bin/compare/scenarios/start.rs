//! The start of `tonnage` on a store with many blobs: after `kill -9` while it was filled, and after a clean stop.
//!
//! The store is filled by the engine's own push path in a process of its own, the hidden subcommand `fill`: images with
//! nine small blobs, a manifest and a tag each.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use tonnage_benches::images::{BLOBS_PER_IMAGE, push_images};
use tonnage_benches::process::status_kib;
use tonnage_benches::tonnage::{Extra, Tonnage};
use tonnage_engine::{Options, Store};
use tonnage_server::runtime;

use super::{Bench, GIB};
use crate::fleet::Per;
use crate::report::{Role, UNDER_TEST, Values};

const NAME: &str = "start";
/// The last line of a process that has filled its store.
const READY: &str = "ready to be killed";

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let program = bench.program()?.path;
    let counts = bench.sizes.start.clone();
    for count in counts {
        // Measured: about 3 KiB a blob with its journal.
        bench.need_space((count * 4096).max(GIB))?;
        let folder =
            tempfile::tempdir_in(&bench.folder).map_err(|e| format!("make a folder: {e}"))?;
        let (_, empty) = start(&program, folder.path())?;
        let empty = empty.rss_anon_kib;
        std::fs::remove_dir_all(folder.path().join("data"))
            .map_err(|e| format!("empty the store: {e}"))?;
        fill_and_kill(&folder.path().join("data"), count)?;
        for how in ["after kill -9", "after a clean stop"] {
            let (running, started) = start(&program, folder.path())?;
            let values = Values::from([
                ("seconds".into(), started.seconds),
                ("rss_anon_mib".into(), started.rss_anon_kib as f64 / 1024.0),
                (
                    "bytes_per_blob".into(),
                    started.rss_anon_kib.saturating_sub(empty) as f64 * 1024.0 / count as f64,
                ),
            ]);
            let case = format!("{count} blobs, {how}");
            bench.report.add(
                NAME,
                &case,
                Per::Requests,
                (UNDER_TEST, Role::Tonnage),
                values,
            );
            running.process.stop()?;
        }
    }
    Ok(())
}

struct Started {
    seconds: f64,
    rss_anon_kib: u64,
}

fn start(program: &Path, folder: &Path) -> Result<(Tonnage, Started), String> {
    rustix::fs::sync();
    let begin = Instant::now();
    let running = Tonnage::start(UNDER_TEST, program, folder, Extra::default())?;
    let seconds = begin.elapsed().as_secs_f64();
    let rss_anon_kib = status_kib(running.pid(), "RssAnon:").ok_or("no RssAnon in its status")?;
    Ok((
        running,
        Started {
            seconds,
            rss_anon_kib,
        },
    ))
}

fn fill_and_kill(data: &Path, blobs: u64) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|e| format!("find the own program: {e}"))?;
    let mut command = Command::new(own);
    command
        .arg("fill")
        .arg(data)
        .arg(blobs.to_string())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("fill a store: {e}"))?;
    let pipe = child
        .stdout
        .take()
        .ok_or("no pipe from the filling process")?;
    let ready = BufReader::new(pipe)
        .lines()
        .map_while(Result::ok)
        .any(|line| line == READY);
    // It pushes on meanwhile.
    drop(child.kill());
    child
        .wait()
        .map_err(|e| format!("wait for the filling process: {e}"))?;
    if ready {
        Ok(())
    } else {
        Err("the filling process ended early; see above".into())
    }
}

/// The subcommand: fills a new store, then pushes on until it is killed.
pub fn fill(data: &Path, blobs: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    let work = async {
        let (store, _) = Store::open(runtime::env()?, data, Options::default()).await?;
        let images = blobs / BLOBS_PER_IMAGE;
        push_images(&store, 0, images, None).await?;
        println!("{READY}");
        push_images(&store, images, u64::MAX / 2, None).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    runtime
        .block_on(work)
        .map_err(|e| format!("fill {}: {e}", data.display()))
}
