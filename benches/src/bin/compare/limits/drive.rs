//! Reads files as fast as the drive allows: by fio, or by an own loop where fio is not installed.
//!
//! Owns: [`read_cold`]. The mode is that of the registries: buffered, sequential, one thread for each file. The files
//! must not be in the page cache.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

const PIECE: usize = 1 << 20;

/// Returns what [`read_cold`] uses.
pub fn reader() -> &'static str {
    match Command::new("fio").arg("--version").output() {
        Ok(out) if out.status.success() => "fio",
        _ => "read loop",
    }
}

/// Reads the files side by side. Returns MiB per second.
pub fn read_cold(files: &[PathBuf]) -> Result<f64, String> {
    if reader() == "fio" {
        by_fio(files)
    } else {
        by_loop(files)
    }
}

fn by_fio(files: &[PathBuf]) -> Result<f64, String> {
    let mut command = Command::new("fio");
    command.args(["--output-format=json", "--group_reporting", "--thread"]);
    command.args([
        "--rw=read",
        "--bs=1M",
        "--ioengine=psync",
        "--direct=0",
        "--invalidate=1",
        "--readonly",
    ]);
    for (number, file) in files.iter().enumerate() {
        let path = file
            .canonicalize()
            .map_err(|e| format!("{}: {e}", file.display()))?;
        // A colon separates names.
        let path = path.display().to_string().replace(':', "\\:");
        command.args([format!("--name=j{number}"), format!("--filename={path}")]);
    }
    let output = command.output().map_err(|e| format!("run fio: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // fio writes notes before its JSON.
    let text = text.find('{').map_or("", |at| &text[at..]);
    let parsed: serde_json::Value = serde_json::from_str(text)
        .map_err(|e| format!("fio: {e}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let rate = parsed["jobs"][0]["read"]["bw_bytes"].as_f64();
    rate.filter(|rate| *rate > 0.0)
        .map(|rate| rate / f64::from(1 << 20))
        .ok_or_else(|| "fio reported no rate".into())
}

fn by_loop(files: &[PathBuf]) -> Result<f64, String> {
    let one = |path: &PathBuf| {
        let (mut file, mut buffer, mut total) = (File::open(path)?, vec![0; PIECE], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok::<_, std::io::Error>(total),
                read => total += read,
            }
        }
    };
    let begin = Instant::now();
    let total = std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .iter()
            .map(|path| scope.spawn(move || one(path)))
            .collect();
        let read = threads.into_iter().map(|thread| match thread.join() {
            Ok(read) => read.map_err(|e| format!("read: {e}")),
            Err(_) => Err("a reader panicked".into()),
        });
        read.sum::<Result<usize, String>>()
    })?;
    Ok(total as f64 / f64::from(1 << 20) / begin.elapsed().as_secs_f64())
}
