//! The machine: what the figures depend on, which cores who may use, and how files leave the page cache.
//!
//! Owns: [`describe`], [`pin`], [`evict`], [`files_between`], [`free_bytes`].

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Advice, fadvise, statvfs};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Who shares the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

/// Limits this process, and those it starts, to one half of the cores: the servers use the first half, the client the
/// second. With one or two cores, both use all.
pub fn pin(side: Side) -> Result<(), String> {
    let doing = |e| format!("choose the cores: {e}");
    let cores = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let all: Vec<usize> = cores.trim().split(',').flat_map(range_of_cores).collect();
    if all.len() <= 2 {
        return Ok(());
    }
    let (first, second) = all.split_at(all.len() / 2);
    let mut set = CpuSet::new();
    let chosen = if side == Side::Server { first } else { second };
    chosen.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).map_err(doing)
}

fn range_of_cores(text: &str) -> std::ops::RangeInclusive<usize> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    first.parse().unwrap_or(1)..=last.parse().unwrap_or(0)
}

/// What is written beside the figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub sha_ni: bool,
    pub cores: usize,
    pub memory: String,
    pub kernel: String,
    pub file_system: String,
    /// The median of 50 writes of 4 KiB with fdatasync.
    pub flush_of_4_kib_ms: f64,
    /// The median of 5 writes of 64 MiB with fdatasync.
    pub flush_of_64_mib_ms: f64,
    pub load_average_before: String,
}

/// Describes the machine, and measures the drive's flush in `folder`.
pub fn describe(folder: &Path) -> Result<Machine, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.split_once(':')
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cpu = read("/proc/cpuinfo");
    Ok(Machine {
        sha_ni: value(&cpu, "flags").split(' ').any(|flag| flag == "sha_ni"),
        cpu: value(&cpu, "model name"),
        cores: sched_getaffinity(None).map_or(0, |set| set.count() as usize),
        memory: value(&read("/proc/meminfo"), "MemTotal"),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        file_system: file_system(folder, &read("/proc/self/mounts")),
        flush_of_4_kib_ms: flush_millis(folder, 4 << 10, 50)?,
        flush_of_64_mib_ms: flush_millis(folder, 64 << 20, 5)?,
        load_average_before: read("/proc/loadavg").trim().to_owned(),
    })
}

fn file_system(folder: &Path, mounts: &str) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let holds = fields.filter(|fields| fields.len() > 3 && folder.starts_with(fields[1]));
    let nearest = holds.max_by_key(|fields| fields[1].len());
    nearest.map_or("unknown".into(), |fields| {
        format!("{} ({})", fields[2], fields[3])
    })
}

/// Returns the median time of a write of `bytes` with fdatasync, in milliseconds.
fn flush_millis(folder: &Path, bytes: usize, count: usize) -> Result<f64, String> {
    let (path, block) = (folder.join("flush"), vec![1; bytes]);
    let mut times = Vec::new();
    let mut all = || {
        let mut file = File::create(&path)?;
        for _ in 0..count {
            file.write_all(&block)?;
            let begin = Instant::now();
            file.sync_data()?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        fs::remove_file(&path)
    };
    all().map_err(|e| format!("measure the flush in {}: {e}", folder.display()))?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Writes all files below `folder` to the drive, and drops them from the page cache (`posix_fadvise`).
pub fn evict(folder: &Path) -> Result<(), String> {
    rustix::fs::sync();
    each_file(folder, &|path| {
        let file = File::open(path)?;
        file.sync_data()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    })
    .map_err(|e| format!("drop {} from the page cache: {e}", folder.display()))
}

/// Returns the files below `folder` whose length in bytes is in `lengths`.
pub fn files_between(folder: &Path, lengths: Range<u64>) -> Result<Vec<PathBuf>, String> {
    let found = RefCell::new(Vec::new());
    each_file(folder, &|path| {
        if lengths.contains(&fs::metadata(path)?.len()) {
            found.borrow_mut().push(path.to_owned());
        }
        Ok(())
    })
    .map_err(|e| format!("find files in {}: {e}", folder.display()))?;
    Ok(found.into_inner())
}

fn each_file(folder: &Path, visit: &impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            each_file(&entry.path(), visit)?;
        } else if kind.is_file() {
            // A server may remove a file meanwhile.
            match visit(&entry.path()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Returns the free space of the file system of `folder`.
pub fn free_bytes(folder: &Path) -> Result<u64, String> {
    let space = statvfs(folder).map_err(|e| format!("space of {}: {e}", folder.display()))?;
    Ok(space.f_bavail * space.f_frsize)
}
