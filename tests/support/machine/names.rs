//! The name space of the simulated disk: its implementation of `Io`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonnage_engine::io::{
    Call, Dir, DirRef, FileRef, Io, IoFuture, LockAttempt, LockGuard, OpenMode, Space,
};

use super::disk::SimDisk;
use super::fault::OpKind;
use super::file::SimFile;
use super::op::Op;

/// The pid that is reported as the holder of a lock.
pub const SIM_PID: u32 = 4242;
/// The size of a disk without a capacity.
const ENDLESS_BYTES: u64 = 1 << 40;

impl Io for SimDisk {
    fn backend(&self) -> &'static str {
        "simulated"
    }

    fn create_dir(&self, call: Call, path: &Path) -> IoFuture<()> {
        let op = Op::new(call, OpKind::CreateDir, path);
        let path = path.to_owned();
        self.submit(op, move |state| Ok((state.machine.create_dir(&path)?, 0)))
    }

    fn list_dir(&self, call: Call, path: &Path) -> IoFuture<Vec<String>> {
        let op = Op::new(call, OpKind::List, path);
        let path = path.to_owned();
        self.submit(op, move |state| {
            let mut names = state.machine.list(&path)?;
            state.prng.shuffle(&mut names);
            Ok((names, 0))
        })
    }

    fn list_files(&self, call: Call, path: &Path) -> IoFuture<Vec<(String, u64)>> {
        let op = Op::new(call, OpKind::List, path);
        let path = path.to_owned();
        self.submit(op, move |state| {
            let mut found = Vec::new();
            for name in state.machine.list(&path)? {
                if let Ok(inode) = state.machine.file_at(&path.join(&name)) {
                    found.push((name, state.machine.files[inode].live.len()));
                }
            }
            state.prng.shuffle(&mut found);
            Ok((found, 0))
        })
    }

    fn open_dir(&self, call: Call, path: &Path) -> IoFuture<DirRef> {
        let (disk, path) = (self.clone(), path.to_owned());
        self.submit(Op::new(call, OpKind::Open, &path), move |state| {
            state.machine.check_dir(&path)?;
            let dir: DirRef = Arc::new(SimDir { disk, path });
            Ok((dir, 0))
        })
    }

    fn open(&self, call: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef> {
        let new = mode == OpenMode::CreateNew;
        let op = Op::new(call, if new { OpKind::Create } else { OpKind::Open }, path);
        let (disk, path) = (self.clone(), path.to_owned());
        self.submit(op, move |state| {
            let machine = &mut state.machine;
            let inode = if new {
                machine.create_file(&path)?
            } else {
                machine.file_at(&path)?
            };
            machine.add_handle(inode);
            let file: FileRef = Arc::new(SimFile::new(disk, path, inode, mode));
            Ok((file, 0))
        })
    }

    fn unlink(&self, call: Call, path: &Path) -> IoFuture<()> {
        let op = Op::new(call, OpKind::Unlink, path);
        let path = path.to_owned();
        self.submit(op, move |state| Ok((state.machine.unlink(&path)?, 0)))
    }

    fn lock(&self, call: Call, path: &Path) -> IoFuture<LockAttempt> {
        let op = Op::new(call, OpKind::Lock, path);
        let (disk, path) = (self.clone(), path.to_owned());
        self.submit(op, move |state| {
            if state.machine.check_dir(&path).is_err() {
                state.machine.file_at(&path)?;
            }
            if !state.locked.insert(path.clone()) {
                return Ok((LockAttempt::Taken(Some(SIM_PID)), 0));
            }
            Ok((LockAttempt::Held(Box::new(Held { disk, path })), 0))
        })
    }

    fn space(&self, call: Call, path: &Path) -> IoFuture<Space> {
        self.submit(Op::new(call, OpKind::Ask, path), move |state| {
            let total_bytes = state.capacity.unwrap_or(ENDLESS_BYTES);
            let available_bytes = total_bytes.saturating_sub(state.machine.used_bytes());
            Ok((
                Space {
                    total_bytes,
                    available_bytes,
                },
                0,
            ))
        })
    }
}

#[derive(Debug)]
struct SimDir {
    disk: SimDisk,
    path: PathBuf,
}

impl Dir for SimDir {
    fn sync(&self, call: Call) -> IoFuture<()> {
        let covers = self.disk.with_state(|state| state.machine.newest());
        let (path, again) = (self.path.clone(), self.path.clone());
        self.disk.submit_or(
            Op::new(call, OpKind::SyncDir, &self.path),
            move |state| {
                state.machine.sync_dir(&path, covers, true);
                Ok(((), 0))
            },
            move |state| state.machine.sync_dir(&again, covers, false),
        )
    }
}

#[derive(Debug)]
struct Held {
    disk: SimDisk,
    path: PathBuf,
}

impl LockGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk
            .with_state(|state| state.locked.remove(&self.path));
    }
}
