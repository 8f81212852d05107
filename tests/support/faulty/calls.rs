//! Calls of the kernel on the faulty disk.
//!
//! Owns: [`Calls`]. Refuses: caching. Names and sizes are valid for one call only, and data uses direct I/O, so that
//! every read and write of the program is a call here.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::store::{Disk, Kind, Store};

const NOT_CACHED: Duration = Duration::ZERO;

#[derive(Debug)]
pub(super) struct Calls {
    store: Arc<Store>,
    handles: Mutex<(u64, HashMap<u64, Open>)>,
}

#[derive(Debug, Clone)]
struct Open {
    disk: Arc<Disk>,
}

/// Unwraps a result, or replies with its error.
macro_rules! answer {
    ($reply:expr, $done:expr) => {
        match $done {
            Ok(done) => done,
            Err(failed) => return $reply.error(errno(&failed)),
        }
    };
}

fn errno(failed: &io::Error) -> Errno {
    Errno::from_i32(failed.raw_os_error().unwrap_or(0))
}

impl Calls {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            handles: Mutex::default(),
        }
    }

    fn path(&self, number: INodeNo) -> io::Result<PathBuf> {
        Ok(self.store.node(number.0)?.path)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn chance(&self, kind: Kind) -> io::Result<()> {
        Ok(self.store.chance(kind)?)
    }

    fn entry(&self, path: &Path) -> io::Result<FileAttr> {
        let found = fs::symlink_metadata(path)?;
        Ok(attributes(self.store.number(path.to_owned()), &found))
    }

    fn attributes(&self, number: INodeNo) -> io::Result<FileAttr> {
        let node = self.store.node(number.0)?;
        let found = match node.disk() {
            Some(disk) => disk.file.metadata()?,
            None => fs::symlink_metadata(&node.path)?,
        };
        Ok(attributes(number.0, &found))
    }

    fn open_disk(&self, number: u64) -> io::Result<(FileHandle, FopenFlags)> {
        let disk = self.store.disk(number)?;
        let mut handles = self.handles.lock();
        handles.0 += 1;
        let handle = handles.0;
        handles.1.insert(handle, Open { disk });
        Ok((FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO))
    }

    fn handle(&self, handle: FileHandle) -> io::Result<Open> {
        let handles = self.handles.lock();
        let open = handles.1.get(&handle.0).cloned();
        open.ok_or_else(|| io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error()))
    }

    fn create_file(&self, path: &Path, mode: u32, flags: i32) -> io::Result<()> {
        self.chance(Kind::NewName)?;
        let exclusive = OFlags::EXCL.bits().cast_signed();
        fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .create_new(flags & exclusive != 0)
            .mode(mode)
            .open(path)
            .map(drop)
    }

    fn read_some(&self, handle: FileHandle, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let Open { disk } = self.handle(handle)?;
        self.chance(Kind::Read)?;
        let mut data = vec![0; self.store.moved(size as usize)];
        let mut read = 0;
        while read < data.len() {
            let more = disk.file.read_at(&mut data[read..], offset + read as u64)?;
            if more == 0 {
                break;
            }
            read += more;
        }
        data.truncate(read);
        Ok(data)
    }

    fn write_some(&self, handle: FileHandle, offset: u64, data: &[u8]) -> io::Result<u32> {
        let Open { disk } = self.handle(handle)?;
        self.chance(Kind::Write)?;
        let moved = self.store.moved(data.len());
        disk.write(offset, &data[..moved])?;
        Ok(u32::try_from(moved).expect("a call has less"))
    }
}

fn attributes(number: u64, found: &Metadata) -> FileAttr {
    let kind = found.file_type();
    let kind = if kind.is_dir() {
        FileType::Directory
    } else if kind.is_socket() {
        FileType::Socket
    } else {
        FileType::RegularFile
    };
    let changed = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(number),
        size: found.len(),
        blocks: found.blocks(),
        atime: changed,
        mtime: changed,
        ctime: changed,
        crtime: changed,
        kind,
        perm: u16::try_from(found.mode() & 0o7777).expect("twelve bits"),
        nlink: u32::try_from(found.nlink()).unwrap_or(1),
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Calls {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.child(parent, name).and_then(|path| self.entry(&path));
        let found = answer!(reply, found);
        reply.entry(&NOT_CACHED, &found, Generation(0));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = answer!(reply, self.attributes(number));
        reply.attr(&NOT_CACHED, &found);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(mode) = mode {
            let permissions = fs::Permissions::from_mode(mode & 0o7777);
            let path = answer!(reply, self.path(number));
            answer!(reply, fs::set_permissions(path, permissions));
        }
        if let Some(size) = size {
            answer!(reply, self.chance(Kind::Space));
            let disk = answer!(reply, self.store.disk(number.0));
            answer!(reply, disk.set_len(size));
        }
        let found = answer!(reply, self.attributes(number));
        reply.attr(&NOT_CACHED, &found);
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let path = answer!(reply, self.child(parent, name));
        let kind = FileType::from_raw_mode(mode);
        let made = mknodat(CWD, &path, kind, Mode::from_raw_mode(mode & !umask), 0);
        answer!(reply, made.map_err(io::Error::from));
        let found = answer!(reply, self.entry(&path));
        reply.entry(&NOT_CACHED, &found, Generation(0));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let path = answer!(reply, self.child(parent, name));
        answer!(reply, self.chance(Kind::NewName));
        let made = fs::DirBuilder::new().mode(mode & !umask).create(&path);
        answer!(reply, made);
        let found = answer!(reply, self.entry(&path));
        reply.entry(&NOT_CACHED, &found, Generation(0));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = answer!(reply, self.child(parent, name));
        answer!(reply, self.chance(Kind::Name));
        answer!(reply, self.store.remove(&path));
        reply.ok();
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.chance(Kind::Name));
        if flags.0 & OFlags::DIRECT.bits().cast_signed() != 0 {
            answer!(reply, self.chance(Kind::Direct));
        }
        let (handle, flags) = answer!(reply, self.open_disk(number.0));
        reply.opened(handle, flags);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let path = answer!(reply, self.child(parent, name));
        answer!(reply, self.create_file(&path, mode & !umask, flags));
        let number = self.store.created(&path);
        let found = answer!(reply, self.entry(&path));
        let (handle, flags) = answer!(reply, self.open_disk(number));
        reply.created(&NOT_CACHED, &found, Generation(0), handle, flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let data = answer!(reply, self.read_some(handle, offset, size));
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let moved = answer!(reply, self.write_some(handle, offset, data));
        reply.written(moved);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let closed = self.handles.lock().1.remove(&handle.0);
        drop(closed);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let disk = answer!(reply, self.handle(handle)).disk;
        answer!(reply, self.store.sync(&disk));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = answer!(reply, self.path(number));
        let synced = self.store.sync_directory(&path);
        answer!(reply, synced.map_err(io::Error::from));
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let path = answer!(reply, self.path(number));
        answer!(reply, self.chance(Kind::Name));
        let listed = answer!(reply, fs::read_dir(&path));
        let mut names: Vec<_> = listed.flatten().map(|entry| entry.file_name()).collect();
        // In the order of names, so that the next call continues where this one ends.
        names.sort();
        let skipped = usize::try_from(offset).expect("a small folder");
        for (at, name) in names.iter().enumerate().skip(skipped) {
            let Ok(found) = self.entry(&path.join(name)) else {
                continue;
            };
            if reply.add(found.ino, at as u64 + 1, found.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found = rustix::fs::statvfs(self.store.root());
        let found = answer!(reply, found.map_err(io::Error::from));
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(4096);
        reply.statfs(
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            size(found.f_bsize),
            255,
            size(found.f_frsize),
        );
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let disk = answer!(reply, self.handle(handle)).disk;
        answer!(reply, self.chance(Kind::Space));
        answer!(reply, disk.allocate(offset, length));
        reply.ok();
    }
}
