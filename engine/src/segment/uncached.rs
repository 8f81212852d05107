//! A segment whose bytes are read from the drive, in windows, without a change to the page cache.
//!
//! Owns: [`UncachedSegment`]. Refuses: what the bytes mean (`verifier`).
//!
//! Invariants: memory is that of one window, from the pool for reads. The caller drops the bytes of one window before
//! it asks for the next: a reader that holds some memory and waits for more can block others.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::files::SegmentFiles;
use super::open_files::OpenFile;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::io::exact::read_at_least;
use crate::io::{Class, FileRef, UNCACHED_ALIGN_BYTES};
use crate::memory::{ReadPool, Reading};

/// Bytes of a window.
pub(super) const WINDOW_BYTES: u64 = 1 << 20;

/// An open segment.
#[derive(Debug)]
pub(crate) struct UncachedSegment {
    id: SegmentId,
    path: PathBuf,
    store: [u8; 16],
    file: FileRef,
    length: u64,
    pool: ReadPool,
    window: Bytes,
    window_at: u64,
    read_bytes: u64,
    _counted: OpenFile,
}

impl UncachedSegment {
    /// Opens a segment.
    pub(super) async fn open(files: &SegmentFiles, pool: &ReadPool, id: SegmentId) -> Result<Self> {
        let (file, counted) = files.open_uncached(id).await?;
        let path = files.path(id);
        let length = file.len(Class::Background.call()).await;
        let length = length.map_err(|error| Error::io("read length of", &path, error))?;
        Ok(Self {
            id,
            path,
            store: files.store(),
            file,
            length,
            pool: pool.clone(),
            window: Bytes::new(),
            window_at: 0,
            read_bytes: 0,
            _counted: counted,
        })
    }

    /// Returns its id.
    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// Returns its path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the id of its store.
    pub(super) fn store(&self) -> &[u8; 16] {
        &self.store
    }

    /// Returns the length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Takes the number of bytes that were read from the file since the last call.
    pub(crate) fn take_read_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.read_bytes)
    }

    /// Returns how many bytes from `at` on are read at once.
    pub(super) fn reach(at: u64) -> u64 {
        WINDOW_BYTES - at % UNCACHED_ALIGN_BYTES
    }

    /// Returns the bytes of `span`, which is within the reach of its start.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file ends before.
    pub(super) async fn window(&mut self, span: Range<u64>) -> Result<Bytes> {
        let known = self.window_at..self.window_at + self.window.len() as u64;
        if span.start < known.start || span.end > known.end {
            self.window = Bytes::new();
            let at = span.start - span.start % UNCACHED_ALIGN_BYTES;
            let room = usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX);
            let buffer = self.pool.take(room, &Reading::content(WINDOW_BYTES)).await;
            match self.read(at, buffer, span.end).await {
                Ok(read) => (self.window, self.window_at) = (read.freeze(), at),
                // Perhaps for a sector of the window that the caller does not want.
                Err(Error::Io { .. }) => return self.aside(span).await,
                Err(error) => return Err(error),
            }
        }
        let offset = |place: u64| usize::try_from(place - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.slice(offset(span.start)..offset(span.end)))
    }

    /// Returns the bytes of a short span beside the window.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file ends before.
    pub(super) async fn aside(&mut self, span: Range<u64>) -> Result<Bytes> {
        let at = span.start - span.start % UNCACHED_ALIGN_BYTES;
        let room = (span.end - at).next_multiple_of(UNCACHED_ALIGN_BYTES);
        let buffer = Buffer::unpooled(usize::try_from(room).unwrap_or(usize::MAX));
        let read = self.read(at, buffer, span.end).await?.freeze();
        let offset = |place: u64| usize::try_from(place - at).unwrap_or(usize::MAX);
        Ok(read.slice(offset(span.start)..offset(span.end)))
    }

    /// Fills a buffer from `at` on, at least to `end`.
    async fn read(&mut self, at: u64, buffer: Buffer, end: u64) -> Result<Buffer> {
        if end > self.length {
            let missing = end - self.length;
            let what = format!("the file ends {missing} bytes early");
            return Err(Error::corrupt(&self.path, self.length, what));
        }
        let there = usize::try_from(self.length - at).unwrap_or(usize::MAX);
        let least = buffer.room().min(there);
        let read = read_at_least(&*self.file, Class::Background.call(), at, buffer, least).await;
        let read = read.map_err(|error| Error::io("read segment", &self.path, error))?;
        self.read_bytes += read.len() as u64;
        if at + (read.len() as u64) < end {
            let at = at + read.len() as u64;
            return Err(Error::corrupt(&self.path, at, "the file became shorter"));
        }
        Ok(read)
    }
}
