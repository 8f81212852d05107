//! Known-bad I/O: a backend that does one operation of the engine wrong and reports success.
//!
//! Owns: [`BadIo`], a decorator around any `Io`; [`ALL`], the table of known-bad operations, each at one call site of
//! the engine; which one is active. Tests that do not notice one of these have a gap.
//!
//! Invariant: the active entry belongs to a thread. The simulated machine runs on one thread, so several can run at
//! once.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tonnage_engine::io::Buffer;
use tonnage_engine::io::{
    Call, Dir, DirRef, File, FileRef, Io, IoError, IoFuture, IoResult, LockAttempt, OpenMode,
    Residency, Space, Spawn, TaskFuture,
};

use crate::call_sites;

/// The way in which an operation is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A sync is omitted.
    SkipSync,
    /// A sync is done at some later moment, and its caller does not wait for it.
    LateSync,
    /// A failed sync is tried again, and the result of the second one counts.
    RetrySync,
    /// The error of a sync is not reported.
    SwallowSync,
    /// A write without space counts as done.
    SwallowFull,
    /// A partial write counts as a whole one.
    ShortIsWhole,
}

/// One entry of the table.
#[derive(Debug, Clone, Copy)]
pub struct BadIo {
    /// Its name on the command line of `sim`.
    pub name: &'static str,
    /// The call site of the operation, as [`call_sites`] names it, or `None` for every one.
    place: Option<&'static str>,
    wrong: Wrong,
}

const fn bad(name: &'static str, wrong: Wrong, place: &'static str) -> BadIo {
    let place = Some(place);
    BadIo { name, place, wrong }
}

const FRAME: &str = "journal/writer.rs write: write_all_and_sync";
const SHARED: &str = "segment/appender.rs write: write_all_and_sync";
const DEDICATED: &str = "segment/dedicated.rs sync: sync_data";

/// All entries.
pub const ALL: &[BadIo] = &[
    bad("skip-frame-sync", Wrong::SkipSync, FRAME),
    bad("next-frame-before-sync", Wrong::LateSync, FRAME),
    bad("sync-error-swallowed", Wrong::SwallowSync, FRAME),
    bad("failed-sync-tried-again", Wrong::RetrySync, FRAME),
    bad(
        "skip-journal-header-sync",
        Wrong::SkipSync,
        "journal/writer.rs activate: write_all_and_sync",
    ),
    bad(
        "skip-journal-directory-sync",
        Wrong::SkipSync,
        "journal/writer.rs sync_directory: sync",
    ),
    bad(
        "skip-journal-end-sync",
        Wrong::SkipSync,
        "journal/resync.rs overwrite: sync_data",
    ),
    bad("skip-shared-sync", Wrong::SkipSync, SHARED),
    bad("late-shared-sync", Wrong::LateSync, SHARED),
    bad("no-space-swallowed", Wrong::SwallowFull, SHARED),
    bad("skip-dedicated-sync", Wrong::SkipSync, DEDICATED),
    bad("late-dedicated-sync", Wrong::LateSync, DEDICATED),
    bad(
        "skip-dedicated-directory-sync",
        Wrong::SkipSync,
        "segment/dedicated.rs sync: sync_dir",
    ),
    bad(
        "skip-shared-directory-sync",
        Wrong::SkipSync,
        "segment/appender.rs create: sync_dir",
    ),
    bad(
        "skip-upload-log-sync",
        Wrong::SkipSync,
        "upload/log.rs try_append: write_all_and_sync",
    ),
    bad(
        "skip-superblock-sync",
        Wrong::SkipSync,
        "recovery/superblock.rs create: sync_data",
    ),
    BadIo {
        name: "short-write-taken-for-whole",
        place: None,
        wrong: Wrong::ShortIsWhole,
    },
];

/// Returns the entry of this name.
pub fn named(name: &str) -> Option<&'static BadIo> {
    ALL.iter().find(|bad| bad.name == name)
}

thread_local! {
    static ACTIVE: Cell<Option<&'static BadIo>> = const { Cell::new(None) };
}

/// Activates one entry for the machines that this thread creates from now on, or none.
pub fn switch(bad: Option<&'static BadIo>) {
    ACTIVE.set(bad);
}

/// Returns `io`, wrapped in the active entry.
pub(crate) fn around(io: Arc<dyn Io>, spawn: Arc<dyn Spawn>) -> Arc<dyn Io> {
    match ACTIVE.get() {
        None => io,
        Some(bad) => Arc::new(Around {
            io,
            rule: Rule { bad, spawn },
        }),
    }
}

#[derive(Debug, Clone)]
struct Rule {
    bad: &'static BadIo,
    spawn: Arc<dyn Spawn>,
}

impl Rule {
    /// Returns what is wrong with this operation.
    fn of(&self, call: Call) -> Option<Wrong> {
        let place = self.bad.place;
        let here = place.is_none() || call_sites::name_of(call) == place;
        here.then_some(self.bad.wrong)
    }

    /// Does a sync as this call does it.
    fn sync(&self, call: Call, sync: impl Fn() -> IoFuture<()> + Send + 'static) -> IoFuture<()> {
        match self.of(call) {
            Some(Wrong::SkipSync) => Box::pin(async { Ok(()) }),
            Some(Wrong::LateSync) => {
                let late = async move { drop(sync().await) };
                self.spawn.spawn("late sync", Box::pin(late));
                Box::pin(async { Ok(()) })
            }
            Some(Wrong::RetrySync) => Box::pin(async move {
                match sync().await {
                    Err(IoError::SyncFailed(_)) => sync().await,
                    synced => synced,
                }
            }),
            Some(Wrong::SwallowSync) => Box::pin(async move {
                match sync().await {
                    Err(IoError::SyncFailed(_)) => Ok(()),
                    synced => synced,
                }
            }),
            Some(Wrong::SwallowFull | Wrong::ShortIsWhole) | None => sync(),
        }
    }

    /// Returns the result of a write of `whole` bytes as this call reports it.
    fn wrote(&self, call: Call, whole: usize, count: IoResult<usize>) -> IoResult<usize> {
        match (self.of(call), count) {
            (Some(Wrong::ShortIsWhole), Ok(count)) if count > 0 => Ok(whole),
            (Some(Wrong::SwallowFull), Err(error)) if error.kind() == ErrorKind::StorageFull => {
                Ok(whole)
            }
            (_, count) => count,
        }
    }
}

#[derive(Debug)]
struct Around {
    io: Arc<dyn Io>,
    rule: Rule,
}

impl Io for Around {
    fn backend(&self) -> &'static str {
        self.io.backend()
    }

    fn create_dir(&self, call: Call, path: &Path) -> IoFuture<()> {
        self.io.create_dir(call, path)
    }

    fn list_dir(&self, call: Call, path: &Path) -> IoFuture<Vec<String>> {
        self.io.list_dir(call, path)
    }

    fn list_files(&self, call: Call, path: &Path) -> IoFuture<Vec<(String, u64)>> {
        self.io.list_files(call, path)
    }

    fn open_dir(&self, call: Call, path: &Path) -> IoFuture<DirRef> {
        let (opened, rule) = (self.io.open_dir(call, path), self.rule.clone());
        Box::pin(async move {
            let dir: DirRef = Arc::new(BadDir {
                dir: opened.await?,
                rule,
            });
            Ok(dir)
        })
    }

    fn open(&self, call: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef> {
        let (opened, rule) = (self.io.open(call, path, mode), self.rule.clone());
        Box::pin(async move {
            let file: FileRef = Arc::new(BadFile {
                file: opened.await?,
                rule,
            });
            Ok(file)
        })
    }

    fn unlink(&self, call: Call, path: &Path) -> IoFuture<()> {
        self.io.unlink(call, path)
    }

    fn lock(&self, call: Call, path: &Path) -> IoFuture<LockAttempt> {
        self.io.lock(call, path)
    }

    fn space(&self, call: Call, path: &Path) -> IoFuture<Space> {
        self.io.space(call, path)
    }

    fn closed(&self) -> TaskFuture {
        self.io.closed()
    }
}

#[derive(Debug)]
struct BadDir {
    dir: DirRef,
    rule: Rule,
}

impl Dir for BadDir {
    fn sync(&self, call: Call) -> IoFuture<()> {
        let dir = Arc::clone(&self.dir);
        self.rule.sync(call, move || dir.sync(call))
    }
}

#[derive(Debug)]
struct BadFile {
    file: FileRef,
    rule: Rule,
}

impl File for BadFile {
    fn read_at(&self, call: Call, offset: u64, buffer: Buffer) -> IoFuture<(Buffer, usize)> {
        self.file.read_at(call, offset, buffer)
    }

    fn read_cached(&self, call: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize> {
        self.file.read_cached(call, offset, buffer)
    }

    fn write_at(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        let (rule, whole) = (self.rule.clone(), slices.iter().map(Bytes::len).sum());
        let write = self.file.write_at(call, offset, slices);
        Box::pin(async move { rule.wrote(call, whole, write.await) })
    }

    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        let whole = slices.iter().map(Bytes::len).sum();
        let (rule, file) = (self.rule.clone(), Arc::clone(&self.file));
        let apart = rule.of(call).is_some();
        if !apart {
            return file.write_and_sync(call, offset, slices);
        }
        let write = file.write_at(call, offset, slices);
        Box::pin(async move {
            let count = rule.wrote(call, whole, write.await)?;
            if count == whole {
                rule.sync(call, move || file.sync_data(call)).await?;
            }
            Ok(count)
        })
    }

    fn sync_data(&self, call: Call) -> IoFuture<()> {
        let file = Arc::clone(&self.file);
        self.rule.sync(call, move || file.sync_data(call))
    }

    fn write_back(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.file.write_back(call, offset, length)
    }

    fn advise(&self, call: Call, offset: u64, length: u64, residency: Residency) -> IoFuture<()> {
        self.file.advise(call, offset, length, residency)
    }

    fn allocate(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.file.allocate(call, offset, length)
    }

    fn set_len(&self, call: Call, length: u64) -> IoFuture<()> {
        self.file.set_len(call, length)
    }

    fn len(&self, call: Call) -> IoFuture<u64> {
        self.file.len(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: each entry of the table names an existing call site of the engine, and no two have one name.
    #[test]
    fn every_call_site_of_the_table_exists() {
        for (number, bad) in ALL.iter().enumerate() {
            let there = |name: &str| call_sites::all().iter().any(|place| place.name == name);
            assert!(bad.place.is_none_or(there), "{}: {:?}", bad.name, bad.place);
            assert!(
                ALL[..number].iter().all(|other| other.name != bad.name),
                "{}",
                bad.name
            );
        }
    }
}
