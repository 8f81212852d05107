//! One run: an immutable sorted file of rows.
//!
//! Owns: [`Run`]: its page directory and filter in memory, and how its pages are read: from the page cache of the
//! store, or from the kernel's without waiting. A read that would wait for the disk fails instead. Refuses: deciding
//! what an unusable file means; the caller rebuilds from the journal.
//!
//! Invariants: a page is checked whenever it is read, also if the check of the whole file was left for later. Until the
//! filter was read, every key passes it. A media error or a truncated file is an error of that read only.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::TableContext;
use super::context::RunDamage;
use super::filter::{Filter, KeyHash};
use super::page_cache::{CachedPage, PageCache};
use crate::buffer::Buffer;
use crate::error::{Absent, Corruption, Error, InMemory, Result};
use crate::format::checkpoint::RunRef;
use crate::format::codec::Malformed;
use crate::format::run::{FileHeader, Page, PageEntry, PagePlace};
use crate::io::{Class, FileRef, IoError, exact};
use crate::limits::COUNTER_USED_MAX;
use crate::sync::{AtomicBool, Mutex, OnceLock};

/// A run file that cannot be used: missing, unreadable, damaged, or of another store. It costs a rebuild.
#[derive(Debug, Clone, thiserror::Error)]
#[error("run file {} cannot be used: {why}", path.display())]
pub(crate) struct UnusableRun {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be used.
    pub why: String,
    /// Whether the file was read and checked. If not, it may be intact.
    pub attempted: bool,
}

impl UnusableRun {
    /// Returns the error for a caller that cannot continue because the file was not checked; `None` if it was.
    pub(crate) fn not_attempted(&self) -> Option<Error> {
        let cause = IoError::NotAttempted(io::Error::other(self.why.clone()));
        (!self.attempted).then(|| Error::io("open run", &self.path, cause))
    }
}

/// Returns the name of a run file in its directory.
pub(crate) fn file_name(id: u64) -> String {
    format!("{id:016x}.run")
}

/// Returns the number in the name of a run file. `None` if no run file can have this name.
pub(crate) fn file_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".run")?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (id <= COUNTER_USED_MAX && file_name(id) == name).then_some(id)
}

/// An open run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) path: PathBuf,
    pub(super) file: FileRef,
    pub(super) header: FileHeader,
    pub(super) crc: u32,
    pub(super) pages: Vec<PageEntry>,
    /// Set once it was read and checked.
    filter: OnceLock<Filter>,
    /// Whether all pages were checked.
    pages_checked: AtomicBool,
    /// Whether the check of a run in use found damage.
    failed: AtomicBool,
    /// Weak references to the pages in memory.
    slots: Vec<Mutex<Weak<CachedPage>>>,
    cache: Arc<PageCache>,
    damage: Arc<RunDamage>,
}

/// A part of a run that may be checked while the run is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunPart {
    /// Read first, because every lookup of an absent key reads a page without it.
    Filter,
    /// All pages.
    Pages,
}

/// The result of a lookup in one run.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The run has no row of the key; older runs may have one.
    NotFound,
    /// The row is deleted, whatever older runs have.
    Deleted,
    /// The row's value.
    Value(Bytes),
}

/// A page that is neither in this process nor in the kernel's page cache.
#[derive(Debug)]
struct AbsentPage {
    run: Arc<Run>,
    page: usize,
}

impl Absent for AbsentPage {
    fn load(&self) -> Pin<Box<dyn Future<Output = Result<InMemory>> + Send>> {
        let (run, page) = (Arc::clone(&self.run), self.page);
        Box::pin(async move {
            let loaded: Arc<dyn Any + Send + Sync> = run.load(page).await?;
            Ok(loaded)
        })
    }
}

impl Run {
    /// Creates a run from its header and directory, which were read and checked.
    pub(super) fn new(
        context: &TableContext,
        path: PathBuf,
        file: FileRef,
        (header, crc): (FileHeader, u32),
        pages: Vec<PageEntry>,
    ) -> Self {
        let slots = pages.iter().map(|_| Mutex::new(Weak::new())).collect();
        Self {
            path,
            file,
            header,
            crc,
            pages,
            filter: OnceLock::default(),
            pages_checked: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            slots,
            cache: Arc::clone(&context.cache),
            damage: Arc::clone(&context.damage),
        }
    }

    /// Begins to use the filter.
    pub(super) fn set_filter(&self, filter: Filter) {
        self.filter.get_or_init(|| filter);
    }

    /// Records that all pages were checked.
    pub(super) fn set_pages_checked(&self) {
        self.pages_checked.store(true, Ordering::Release);
    }

    /// Records damage that the check of a run in use found. The check is over.
    pub(super) fn set_failed(&self, why: String) {
        let found = self.damaged(0, why);
        tracing::error!(%found, "a part of index and catalog is damaged; requests that need it fail");
        self.failed.store(true, Ordering::Release);
    }

    /// Whether a part has to be checked.
    pub(super) fn is_unchecked(&self, part: RunPart) -> bool {
        let checked = match part {
            RunPart::Filter => self.filter.get().is_some(),
            RunPart::Pages => self.pages_checked.load(Ordering::Acquire),
        };
        !checked && !self.failed.load(Ordering::Acquire)
    }

    /// Looks up `key`.
    ///
    /// # Errors
    /// [`Error::NotResident`] if that needs the disk.
    pub(super) fn get(self: &Arc<Self>, key: &[u8], hash: KeyHash) -> Result<Lookup> {
        if !self.may_have(hash) {
            return Ok(Lookup::NotFound);
        }
        let Some(number) = self.page_of(key) else {
            return Ok(Lookup::NotFound);
        };
        let page = self.try_page(number)?;
        Ok(match page.page.find(key) {
            None => Lookup::NotFound,
            Some(None) => Lookup::Deleted,
            Some(Some(value)) => Lookup::Value(Bytes::copy_from_slice(value)),
        })
    }

    /// Whether the run may have rows whose filter key has this hash.
    pub(super) fn may_have(&self, hash: KeyHash) -> bool {
        let filter = self.filter.get();
        filter.is_none_or(|filter| filter.may_have(hash))
    }

    /// Returns the number of the page that would hold `key`; `None` if `key` is before all of them.
    pub(super) fn page_of(&self, key: &[u8]) -> Option<usize> {
        self.pages
            .partition_point(|page| page.first_key <= key)
            .checked_sub(1)
    }

    /// Returns a page by its number, without waiting for the disk.
    pub(super) fn try_page(self: &Arc<Self>, number: usize) -> Result<Arc<CachedPage>> {
        let cached = self
            .slots
            .get(number)
            .and_then(|slot| slot.lock().upgrade());
        if let Some(page) = cached {
            page.touch();
            return Ok(page);
        }
        let entry = self.entry(number)?;
        let mut buffer = Buffer::unpooled(usize::try_from(entry.bytes).unwrap_or(usize::MAX));
        while buffer.room() > 0 {
            let at = entry.offset + buffer.len() as u64;
            match self.file.read_cached(CLASS.call(), at, &mut buffer) {
                Ok(0) => return Err(self.cut_short(entry)),
                Ok(_) => {}
                Err(IoError::NotAttempted(_)) => {
                    return Err(self.not_resident(number));
                }
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        self.check_and_cache(number, entry, &buffer)
    }

    /// Returns the error of a read that needs a page from the disk.
    pub(super) fn not_resident(self: &Arc<Self>, page: usize) -> Error {
        let run = Arc::clone(self);
        Error::NotResident(Arc::new(AbsentPage { run, page }))
    }

    /// Reads a page from the disk.
    async fn load(self: Arc<Self>, number: usize) -> Result<Arc<CachedPage>> {
        let entry = self.entry(number)?;
        let buffer = Buffer::unpooled(usize::try_from(entry.bytes).unwrap_or(usize::MAX));
        let read = exact::read_exact(&*self.file, CLASS.call(), entry.offset, buffer).await;
        let buffer = read.map_err(|error| self.unreadable(error))?;
        self.check_and_cache(number, entry, &buffer)
    }

    /// Checks the bytes of a page, and caches it where lookups find it.
    fn check_and_cache(
        &self,
        number: usize,
        entry: &PageEntry,
        read: &Buffer,
    ) -> Result<Arc<CachedPage>> {
        let bytes = Bytes::copy_from_slice(read.filled());
        let page = Arc::new(CachedPage::new(self.decode_page(entry, bytes)?));
        if let Some(slot) = self.slots.get(number) {
            let mut slot = slot.lock();
            // Another task read the same page meanwhile, and its waiters need that copy.
            if let Some(cached) = slot.upgrade() {
                return Ok(cached);
            }
            *slot = Arc::downgrade(&page);
        }
        self.cache.keep(Arc::clone(&page));
        Ok(page)
    }

    /// Decodes and checks the page of `entry`.
    pub(super) fn decode_page(&self, entry: &PageEntry, bytes: Bytes) -> Result<Page> {
        open_page(&self.header, entry, bytes)
            .map_err(|what| self.damaged(entry.offset, what.0).into())
    }

    pub(super) fn entry(&self, number: usize) -> Result<&PageEntry> {
        let entry = self.pages.get(number);
        entry.ok_or_else(|| Error::corrupt(&self.path, 0, format!("no page {number}")))
    }

    pub(super) fn unreadable(&self, error: IoError) -> Error {
        if error.was_attempted() {
            self.damaged(0, error.to_string());
        }
        Error::io("read rows of", &self.path, error)
    }

    fn cut_short(&self, entry: &PageEntry) -> Error {
        let what = "the file ends before this page's end".to_owned();
        self.damaged(entry.offset, what).into()
    }

    /// Records damage of this run, and returns it.
    fn damaged(&self, offset: u64, what: String) -> Corruption {
        let found = Corruption {
            path: self.path.clone(),
            offset,
            what: what + ADVICE,
        };
        self.damage.record(found.clone());
        found
    }

    /// Returns the reference by which a checkpoint names this file.
    pub(crate) fn reference(&self) -> RunRef {
        RunRef {
            id: self.header.file_id,
            rows: self.header.rows,
            bytes: self.header.file_bytes,
            crc: self.crc,
        }
    }
}

/// Requests wait for lookups.
const CLASS: Class = Class::ForegroundRead;

/// Advice in the error of a damaged run of an open store.
const ADVICE: &str = "; restart: a damaged run is rebuilt from the journal";

/// Decodes and checks the page of `entry`.
pub(super) fn open_page(
    header: &FileHeader,
    entry: &PageEntry,
    bytes: Bytes,
) -> std::result::Result<Page, Malformed> {
    let place = PagePlace {
        store_id: header.store_id,
        file_id: header.file_id,
        offset: entry.offset,
    };
    let page = Page::open(bytes, place, entry.crc)?;
    if page.row(0).is_none_or(|(key, _)| key != entry.first_key) {
        return Err(Malformed::new(
            "a page's first key differs from the directory's",
        ));
    }
    Ok(page)
}
