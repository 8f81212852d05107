//! Read-only mappings of immutable files.
//!
//! Owns: mapping, and turning a medium's error into an `io::Error` before anyone touches the bytes.
//! Refuses: writable mappings (a full disk turns one into SIGBUS).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Advice, Mmap, MmapOptions};
use rustix::io::retry_on_intr;

use super::file;
use super::sigbus::Registration;
use crate::io::{Map, MapRef};

const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct WholeFile {
    _registration: Registration,
    map: Mmap,
}

impl Map for WholeFile {
    fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// A file of no bytes has nothing to map.
#[derive(Debug)]
struct Empty;

impl Map for Empty {
    fn bytes(&self) -> &[u8] {
        &[]
    }
}

/// Maps the file, which is at `path`, and reads all of it into memory.
pub(super) fn map_whole(descriptor: &OwnedFd, path: &Path) -> io::Result<MapRef> {
    let length = file::length(descriptor)?;
    if length == 0 {
        return Ok(Arc::new(Empty));
    }
    let length = usize::try_from(length)
        .map_err(|too_large| io::Error::new(io::ErrorKind::FileTooLarge, too_large))?;
    let mut options = MmapOptions::new();
    options.len(length);
    #[expect(
        unsafe_code,
        reason = "a mapping is shared with whoever else may write the file"
    )]
    // SAFETY: the seam maps immutable files only: the store's lock keeps other processes of ours away, and
    // the engine never writes or truncates a file once it is mapped.
    let map = unsafe { options.map(descriptor) }?;
    make_resident(descriptor, &map)?;
    Ok(Arc::new(WholeFile {
        _registration: Registration::new(&map, path),
        map,
    }))
}

/// Reads the pages in now: a bad sector is an error of this call then, and no SIGBUS at some later touch.
fn make_resident(descriptor: &OwnedFd, map: &Mmap) -> io::Result<()> {
    match map.advise(Advice::PopulateRead) {
        // Linux before 5.14 does not know it and says EINVAL.
        Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => {
            read_through(descriptor, map.len() as u64)
        }
        populated => populated,
    }
}

/// Reads every page, so that they are in the page cache and one that cannot be read is an error.
fn read_through(descriptor: &OwnedFd, length: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < length {
        match retry_on_intr(|| rustix::io::pread(descriptor, &mut *piece, at))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => at += read as u64,
        }
    }
    Ok(())
}
