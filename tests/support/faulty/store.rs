//! The backing directory of the faulty disk, and what of it is not durable yet.
//!
//! Owns: [`Store`], names by number; [`Disk`], the bytes of one file and the undo of its unsynced writes. Refuses:
//! syncs of the backing directory. This module decides what is durable, and the file system below does not stop.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{Done, Rates};
use crate::content::Seeded;

/// The unit of a drive's writes.
const SECTOR: u64 = 512;

#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    /// The directory of removed files until their removal is durable.
    kept: PathBuf,
    names: Mutex<Names>,
    chances: Mutex<Chances>,
}

#[derive(Debug)]
struct Chances {
    choices: Seeded,
    rates: Rates,
    done: Done,
}

#[derive(Debug, Default)]
struct Names {
    /// Never reused.
    next: u64,
    by_path: HashMap<PathBuf, u64>,
    nodes: HashMap<u64, Node>,
    /// Changes of each directory since its last sync, in order.
    pending: Vec<Change>,
}

/// The file or directory of a number.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    /// A file that was opened. It is kept until it is removed, so that its undo outlives its handles.
    disk: Option<Arc<Disk>>,
    /// The same, also after its removal while it is open.
    open: Weak<Disk>,
}

impl Node {
    /// Returns the file, if it was opened before.
    pub(super) fn disk(&self) -> Option<Arc<Disk>> {
        self.open.upgrade()
    }
}

#[derive(Debug)]
struct Change {
    directory: PathBuf,
    path: PathBuf,
    /// The path of a removed file until the removal is durable; `None` for a creation.
    kept: Option<PathBuf>,
    /// A sync that should have covered it failed.
    doomed: bool,
}

/// One file.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) file: File,
    unsynced: Mutex<Vec<Undo>>,
}

/// The undo of one write or change of size that was not synced.
#[derive(Debug)]
struct Undo {
    offset: u64,
    /// The old content. Zeros and holes are not stored as bytes.
    old: Old,
    old_size: u64,
    doomed: bool,
}

#[derive(Debug)]
enum Old {
    Zeros(u64),
    Bytes(Vec<u8>),
}

/// The kinds of calls, by the faults that they may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Space,
    Name,
    /// A change of a name that takes space.
    NewName,
    Sync,
    /// An open for direct I/O.
    Direct,
}

impl Store {
    pub(super) fn new(backing: &Path, seed: u64) -> io::Result<Self> {
        let (root, kept) = (backing.join("shown"), backing.join("kept"));
        fs::create_dir(&root)?;
        fs::create_dir(&kept)?;
        let mut names = Names {
            next: fuser::INodeNo::ROOT.0,
            ..Names::default()
        };
        names.number(root.clone());
        Ok(Self {
            root,
            kept,
            names: Mutex::new(names),
            chances: Mutex::new(Chances {
                choices: Seeded::new(seed),
                rates: Rates::default(),
                done: Done::default(),
            }),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn fail(&self, rates: Rates) {
        self.chances.lock().rates = rates;
    }

    pub(super) fn done(&self) -> Done {
        self.chances.lock().done
    }

    /// Decides whether this call fails, and how.
    pub(super) fn chance(&self, kind: Kind) -> Result<(), Errno> {
        let mut chances = self.chances.lock();
        let rates = chances.rates;
        let (broken, full, interrupted) = match kind {
            Kind::Read => (rates.reads, 0, rates.interrupted),
            Kind::Write => (rates.writes, rates.full, rates.interrupted),
            Kind::Space => (rates.writes, rates.full, 0),
            Kind::Name => (rates.names, 0, 0),
            Kind::NewName => (rates.names, rates.full, 0),
            Kind::Sync => (rates.syncs, 0, 0),
            Kind::Direct => (rates.direct, 0, 0),
        };
        let drawn = chances.choices.between(0, 10_000);
        let failure = if drawn < broken && kind == Kind::Direct {
            Errno::INVAL
        } else if drawn < broken {
            Errno::IO
        } else if drawn < broken + full / 2 {
            Errno::NOSPC
        } else if drawn < broken + full {
            Errno::DQUOT
        } else if drawn < broken + full + interrupted {
            Errno::INTR
        } else {
            return Ok(());
        };
        chances.done.failed += 1;
        chances.done.syncs += u64::from(kind == Kind::Sync);
        chances.done.direct += u64::from(kind == Kind::Direct);
        Err(failure)
    }

    /// Returns how many of `length` bytes a read or write transfers.
    pub(super) fn moved(&self, length: usize) -> usize {
        let mut chances = self.chances.lock();
        if length < 2 || chances.choices.between(0, 10_000) >= chances.rates.short {
            return length;
        }
        chances.done.short += 1;
        let moved = chances.choices.between(1, length as u64);
        usize::try_from(moved).expect("less than the length")
    }

    /// Draws one of `choices` numbers from 0 on.
    fn draw(&self, choices: u64) -> u64 {
        self.chances.lock().choices.between(0, choices)
    }

    pub(super) fn number(&self, path: PathBuf) -> u64 {
        self.names.lock().number(path)
    }

    pub(super) fn node(&self, number: u64) -> Result<Node, Errno> {
        self.names
            .lock()
            .nodes
            .get(&number)
            .cloned()
            .ok_or(Errno::STALE)
    }

    /// Returns the file of `number`, opened once.
    pub(super) fn disk(&self, number: u64) -> io::Result<Arc<Disk>> {
        let mut names = self.names.lock();
        let node = names.nodes.get_mut(&number).ok_or(Errno::STALE)?;
        if let Some(disk) = node.disk() {
            return Ok(disk);
        }
        let file = File::options().read(true).write(true).open(&node.path)?;
        let disk = Arc::new(Disk {
            file,
            unsynced: Mutex::default(),
        });
        node.open = Arc::downgrade(&disk);
        node.disk = Some(Arc::clone(&disk));
        Ok(disk)
    }

    pub(super) fn created(&self, path: &Path) -> u64 {
        let mut names = self.names.lock();
        names.pending.push(Change {
            directory: path.parent().unwrap_or(&self.root).to_owned(),
            path: path.to_owned(),
            kept: None,
            doomed: false,
        });
        names.number(path.to_owned())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        names.next += 1;
        let kept = self.kept.join(names.next.to_string());
        fs::rename(path, &kept)?;
        if let Some(number) = names.by_path.remove(path)
            && let Some(node) = names.nodes.get_mut(&number)
        {
            node.disk = None;
        }
        names.pending.push(Change {
            directory: path.parent().unwrap_or(&self.root).to_owned(),
            path: path.to_owned(),
            kept: Some(kept),
            doomed: false,
        });
        Ok(())
    }

    pub(super) fn sync_directory(&self, directory: &Path) -> Result<(), Errno> {
        let failed = self.chance(Kind::Sync);
        let mut names = self.names.lock();
        let of_it = |change: &Change| change.directory == directory && !change.doomed;
        if failed.is_err() {
            for change in names.pending.iter_mut().filter(|change| of_it(change)) {
                change.doomed = true;
            }
            return failed;
        }
        for change in names.pending.extract_if(.., |change| of_it(change)) {
            change.end()?;
        }
        Ok(())
    }

    pub(super) fn sync(&self, disk: &Disk) -> io::Result<()> {
        let failed = self.chance(Kind::Sync);
        let at_once = failed.is_err() && self.draw(2) == 0;
        let mut unsynced = disk.unsynced.lock();
        match failed {
            Ok(()) => {
                // Bytes lost before are lost, but not those that were written again and are durable now.
                let size = disk.file.metadata()?.len();
                while let Some(at) = unsynced.iter().position(|undo| !undo.doomed) {
                    let synced = unsynced.remove(at);
                    let again = synced.offset..synced.offset + synced.length();
                    for lost in &mut unsynced[..at] {
                        lost.spare(&disk.file, &again)?;
                    }
                }
                for undo in unsynced.iter_mut() {
                    undo.old_size = size;
                }
            }
            Err(failed) if at_once => {
                let lost = unsynced.len() as u64;
                for undo in unsynced.drain(..).rev() {
                    undo.apply(&disk.file, 0, false)?;
                }
                self.chances.lock().done.lost += lost;
                return Err(failed.into());
            }
            Err(failed) => {
                for undo in unsynced.iter_mut() {
                    undo.doomed = true;
                }
                return Err(failed.into());
            }
        }
        Ok(())
    }

    pub(super) fn cut_power(&self) -> io::Result<()> {
        let mut names = self.names.lock();
        let disks: Vec<_> = names
            .nodes
            .values()
            .filter_map(|node| node.disk.clone())
            .collect();
        for disk in disks {
            self.cut_file(&disk)?;
        }
        let all = self.draw(3);
        for change in std::mem::take(&mut names.pending).into_iter().rev() {
            if change.doomed || all == 0 || (all == 1 && self.draw(2) == 0) {
                if let Some(number) = change.undo()? {
                    names.by_path.remove(&number);
                }
            } else {
                change.end()?;
            }
        }
        Ok(())
    }

    /// Loses all unsynced writes, none, or some.
    fn cut_file(&self, disk: &Disk) -> io::Result<()> {
        let all = self.draw(3);
        for undo in disk.unsynced.lock().drain(..).rev() {
            if !undo.doomed && (all == 2 || (all == 1 && self.draw(2) == 0)) {
                continue;
            }
            let sectors = undo.length() / SECTOR;
            let kept = if undo.doomed || all == 0 || sectors == 0 {
                0
            } else {
                self.draw(sectors + 1) * SECTOR
            };
            undo.apply(&disk.file, kept, kept == 0)?;
            self.chances.lock().done.lost += 1;
        }
        Ok(())
    }
}

impl Names {
    fn number(&mut self, path: PathBuf) -> u64 {
        if let Some(number) = self.by_path.get(&path) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.by_path.insert(path.clone(), number);
        self.nodes.insert(
            number,
            Node {
                path,
                disk: None,
                open: Weak::new(),
            },
        );
        number
    }
}

impl Change {
    /// Makes the change durable.
    fn end(self) -> Result<(), Errno> {
        match self.kept {
            None => Ok(()),
            Some(kept) => rustix::fs::unlink(kept),
        }
    }

    /// Undoes the change. Returns a path whose number is no longer valid.
    fn undo(self) -> io::Result<Option<PathBuf>> {
        match self.kept {
            None if self.path.exists() => {
                fs::remove_file(&self.path)?;
                Ok(Some(self.path))
            }
            None => Ok(None),
            Some(kept) if self.path.exists() => {
                fs::remove_file(kept)?;
                Ok(None)
            }
            Some(kept) => {
                fs::rename(kept, &self.path)?;
                Ok(Some(self.path))
            }
        }
    }
}

impl Disk {
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        unsynced.push(self.undo(offset, data.len() as u64)?);
        self.file.write_all_at(data, offset)
    }

    pub(super) fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        unsynced.push(self.undo(offset, 0)?);
        let flags = rustix::fs::FallocateFlags::empty();
        Ok(rustix::fs::fallocate(&self.file, flags, offset, length)?)
    }

    pub(super) fn set_len(&self, length: u64) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        let size = self.file.metadata()?.len();
        unsynced.push(self.undo(length, size.saturating_sub(length))?);
        self.file.set_len(length)
    }

    /// Returns the undo of a write of `length` bytes: the present bytes, with zeros after the end of the file.
    fn undo(&self, offset: u64, length: u64) -> io::Result<Undo> {
        let old_size = self.file.metadata()?.len();
        let there = old_size.saturating_sub(offset).min(length);
        let mut old = vec![0; usize::try_from(length).expect("one call's bytes")];
        let there = usize::try_from(there).expect("no more than the length");
        self.file.read_exact_at(&mut old[..there], offset)?;
        let old = if old.iter().all(|byte| *byte == 0) {
            Old::Zeros(length)
        } else {
            Old::Bytes(old)
        };
        Ok(Undo {
            offset,
            old,
            old_size,
            doomed: false,
        })
    }
}

impl Undo {
    fn length(&self) -> u64 {
        match &self.old {
            Old::Zeros(length) => *length,
            Old::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Changes the undo so that it keeps a range of the file as it is now.
    fn spare(&mut self, file: &File, range: &Range<u64>) -> io::Result<()> {
        let from = range.start.max(self.offset);
        let mut at = from;
        let to = range.end.min(self.offset + self.length());
        if from >= to {
            return Ok(());
        }
        let length = usize::try_from(self.length()).expect("one call's bytes");
        if let Old::Zeros(_) = self.old {
            self.old = Old::Bytes(vec![0; length]);
        }
        let Old::Bytes(old) = &mut self.old else {
            unreachable!("the undo was just created")
        };
        while at < to {
            let place = |at: u64| usize::try_from(at - self.offset).expect("in memory");
            let read = file.read_at(&mut old[place(at)..place(to)], at)?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        Ok(())
    }

    /// Restores the old content, except the first `kept` bytes of the new; with `shrink` also the size.
    fn apply(self, file: &File, kept: u64, shrink: bool) -> io::Result<()> {
        let mut size = file.metadata()?.len();
        if shrink && size > self.old_size {
            file.set_len(self.old_size)?;
            size = self.old_size;
        }
        let length = self.length();
        let mut old = match self.old {
            Old::Bytes(bytes) => bytes,
            Old::Zeros(_) => vec![0; usize::try_from(length).expect("one call's bytes")],
        };
        let end = size.max(self.old_size).min(self.offset + length);
        let place = |at: u64| usize::try_from(at.saturating_sub(self.offset)).expect("in memory");
        old.truncate(place(end));
        let from = place(self.offset + kept).min(old.len());
        file.write_all_at(&old[from..], self.offset + kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: what is written again after a failed sync, and synced, survives a power cut; what is not written again
    /// does not.
    #[test]
    fn a_later_sync_counts_for_what_was_written_again() {
        for seed in 0..16 {
            let backing = tempfile::tempdir().unwrap();
            let store = Store::new(backing.path(), seed).unwrap();
            let path = store.root().join("file");
            fs::write(&path, [0; 3]).unwrap();
            let disk = store.disk(store.number(path.clone())).unwrap();
            store.fail(Rates {
                syncs: 10_000,
                ..Rates::default()
            });
            disk.write(0, b"abc").unwrap();
            store.sync(&disk).unwrap_err();
            store.fail(Rates::default());
            disk.write(1, b"b").unwrap();
            store.sync(&disk).unwrap();
            store.cut_power().unwrap();
            assert_eq!(fs::read(&path).unwrap(), [0, b'b', 0], "seed {seed}");
        }
    }
}
