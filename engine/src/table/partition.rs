//! One base file, mapped: a contiguous run of rows.
//!
//! Owns: [`Partition`]: its page directory and the fingerprints of its index rows in memory, its pages in the map.
//! Refuses: judging what an unusable file means; the caller rebuilds from the journal.
//!
//! Invariants: opening checks everything (checksums, structure, order of keys), a lookup checks its page again.

use std::collections::VecDeque;
use std::ops::{Range, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::fingerprint::{Fingerprints, fingerprint};
use super::scan::{Bounds, Row, as_slices};
use crate::error::{Error, Result};
use crate::format::base::{
    FILE_HEADER_BYTES, FileHeader, PAGE_BYTES_MAX, PageEntry, PagePlace, PageView,
    decode_directory, open_page,
};
use crate::format::checkpoint::PartitionRef;
use crate::format::codec::{Malformed, checksum};
use crate::io::{Class, Env, MapRef};
use crate::limits::COUNTER_USED_MAX;
use crate::sync::AtomicU64;

/// Pages checked in one job while opening: at most 4 MiB at the usual page sizes, a few milliseconds.
const PAGES_PER_JOB: usize = 256;

/// A base file that cannot be used: missing, unreadable, damaged, or another's. Costs a rebuild.
#[derive(Debug, Clone, thiserror::Error)]
#[error("base file {} cannot be used: {why}", path.display())]
pub struct Unusable {
    /// The file.
    pub path: PathBuf,
    /// What does not hold.
    pub why: String,
    /// Whether it was looked at. If not, nothing is known against it.
    pub attempted: bool,
}

/// Name of a base file in its directory.
pub(crate) fn file_name(id: u64) -> String {
    format!("{id:016x}.base")
}

/// The number of a base file, from its name. One that no store reaches is a stranger's.
pub(crate) fn file_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".base")?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (id <= COUNTER_USED_MAX && file_name(id) == name).then_some(id)
}

/// A mapped base file.
#[derive(Debug)]
pub(crate) struct Partition {
    path: PathBuf,
    map: MapRef,
    header: FileHeader,
    crc: u32,
    pages: Vec<Page>,
    fingerprints: Fingerprints,
    touches: AtomicU64,
}

#[derive(Debug)]
struct Page {
    offset: u64,
    entry: PageEntry,
}

impl Partition {
    /// Maps and checks the file that `expected` names.
    pub(crate) async fn open(
        env: &Env,
        dir: &Path,
        store_id: [u8; 16],
        expected: &PartitionRef,
    ) -> std::result::Result<Self, Unusable> {
        let path = dir.join(file_name(expected.id));
        let unusable = |why: String| Unusable {
            path: path.clone(),
            why,
            attempted: true,
        };
        let map = env
            .io
            .map(Class::Background.call(), &path)
            .await
            .map_err(|error| Unusable {
                attempted: error.was_attempted(),
                ..unusable(error.to_string())
            })?;
        let mut opened = Self::read_directory(path.clone(), map, store_id, expected)
            .map_err(|malformed| unusable(malformed.0))?;
        let mut checked = 0;
        while checked < opened.pages.len() {
            let next = (checked + PAGES_PER_JOB).min(opened.pages.len());
            let range = checked..next;
            let job = move || opened.check_pages(range).map(|()| opened);
            let Some(done) = env.compute(job).await else {
                return Err(unusable("the check did not run to its end".to_owned()));
            };
            opened = done.map_err(|malformed| unusable(malformed.0))?;
            checked = next;
        }
        let rows: u64 = opened
            .pages
            .iter()
            .map(|page| u64::from(page.entry.rows))
            .sum();
        if rows != expected.rows {
            return Err(unusable(format!("{rows} rows, expected {}", expected.rows)));
        }
        Ok(opened)
    }

    fn read_directory(
        path: PathBuf,
        map: MapRef,
        store_id: [u8; 16],
        expected: &PartitionRef,
    ) -> std::result::Result<Self, Malformed> {
        let bytes = map.bytes();
        let header = FileHeader::decode(bytes)?;
        let crc = header_crc(bytes);
        let size = bytes.len() as u64;
        if header.store_id != store_id {
            return Err(Malformed::new("it belongs to another store"));
        }
        let found = (header.file_id, header.file_bytes, header.rows, crc);
        if found != (expected.id, size, expected.rows, expected.crc) || size != expected.bytes {
            return Err(Malformed(format!(
                "its header (number, bytes, rows, checksum: {found:x?}; {size} bytes) is not what the \
                 checkpoint says ({expected:x?})"
            )));
        }
        let directory = usize::try_from(header.directory_offset)
            .ok()
            .and_then(|offset| bytes.get(offset..))
            .ok_or_else(|| Malformed::new("its directory lies behind its end"))?;
        if checksum(directory) != header.directory_crc {
            return Err(Malformed::new("its directory does not match its checksum"));
        }
        let mut offset = FILE_HEADER_BYTES as u64;
        let mut pages = Vec::new();
        for entry in decode_directory(directory, header.pages)? {
            let length = u64::from(entry.bytes);
            if length > PAGE_BYTES_MAX as u64 || entry.rows == 0 {
                return Err(Malformed(format!(
                    "a page of {length} bytes, {} rows",
                    entry.rows
                )));
            }
            pages.push(Page { offset, entry });
            offset += length;
        }
        if offset != header.directory_offset {
            return Err(Malformed::new(
                "its pages do not end where its directory starts",
            ));
        }
        if pages.first().map(|page| &page.entry.first_key) != Some(&expected.first_key) {
            return Err(Malformed::new(
                "its first key is not what the checkpoint says",
            ));
        }
        let fingerprints = Fingerprints::default();
        Ok(Self {
            path,
            map,
            header,
            crc,
            pages,
            fingerprints,
            touches: AtomicU64::new(0),
        })
    }

    /// Checks some pages and takes in the fingerprints of their rows.
    fn check_pages(&mut self, range: Range<usize>) -> std::result::Result<(), Malformed> {
        let mut known = std::mem::take(&mut self.fingerprints);
        for number in range {
            let Some(page) = self.pages.get(number) else {
                break;
            };
            let view = open_page(self.page_bytes(page)?, self.place(page), page.entry.crc)?;
            let mut last: Option<&[u8]> = None;
            for (key, _) in view.iter() {
                if last.is_none() && key != page.entry.first_key {
                    return Err(Malformed::new(
                        "a page's first key is not what the directory says",
                    ));
                }
                if last.is_some_and(|last| last >= key) {
                    return Err(Malformed::new("keys do not ascend"));
                }
                last = Some(key);
            }
            let next = self.pages.get(number + 1);
            if let (Some(last), Some(next)) = (last, next)
                && last >= next.entry.first_key.as_ref()
            {
                return Err(Malformed::new("keys do not ascend from page to page"));
            }
            let keys = view.iter().map(|(key, _)| fingerprint(key));
            let fingerprints = super::has_fingerprints(&page.entry.first_key).then_some(keys);
            known.push_page(fingerprints.into_iter().flatten());
        }
        self.fingerprints = known;
        Ok(())
    }

    fn place(&self, page: &Page) -> PagePlace {
        PagePlace {
            store_id: self.header.store_id,
            file_id: self.header.file_id,
            offset: page.offset,
        }
    }

    fn page_bytes(&self, page: &Page) -> std::result::Result<&[u8], Malformed> {
        let start = usize::try_from(page.offset).ok();
        let length = usize::try_from(page.entry.bytes).ok();
        let range = start
            .zip(length)
            .map(|(start, length)| start..start + length);
        range
            .and_then(|range| self.map.bytes().get(range))
            .ok_or_else(|| Malformed::new("a page lies behind the end of the file"))
    }

    /// Looks into a page: counted, checked.
    fn touch(&self, page: &Page) -> Result<PageView<'_>> {
        self.touches.fetch_add(1, Ordering::Relaxed);
        self.page_bytes(page)
            .and_then(|bytes| open_page(bytes, self.place(page), page.entry.crc))
            .map_err(|malformed| Error::corrupt(&self.path, page.offset, malformed.0))
    }

    /// The value of `key`, if this partition holds it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let Some(number) = self.page_of(key) else {
            return Ok(None);
        };
        let Some(page) = self.pages.get(number) else {
            return Ok(None);
        };
        if super::has_fingerprints(key)
            && super::has_fingerprints(&page.entry.first_key)
            && !self.fingerprints.page_may_hold(number, fingerprint(key))
        {
            return Ok(None);
        }
        Ok(self.touch(page)?.find(key).map(Bytes::copy_from_slice))
    }

    /// Number of the page that would hold `key`; `None` if it lies before all of them.
    pub(super) fn page_of(&self, key: &[u8]) -> Option<usize> {
        self.pages
            .partition_point(|page| page.entry.first_key <= key)
            .checked_sub(1)
    }

    /// First key of a page; `None` behind the last one.
    pub(super) fn page_key(&self, number: usize) -> Option<&Bytes> {
        self.pages.get(number).map(|page| &page.entry.first_key)
    }

    /// Copies the rows of a page that lie within `bounds`.
    pub(super) fn copy_page(
        &self,
        number: usize,
        bounds: &Bounds,
        rows: &mut VecDeque<Row>,
    ) -> Result<()> {
        let Some(page) = self.pages.get(number) else {
            return Ok(());
        };
        let range = as_slices(bounds);
        for (key, value) in self.touch(page)?.iter() {
            if RangeBounds::<[u8]>::contains(&range, key) {
                rows.push_back((
                    Bytes::copy_from_slice(key),
                    Some(Bytes::copy_from_slice(value)),
                ));
            }
        }
        Ok(())
    }

    /// How a checkpoint names this file.
    pub(crate) fn reference(&self) -> PartitionRef {
        PartitionRef {
            id: self.header.file_id,
            first_key: self.first_key().clone(),
            rows: self.header.rows,
            bytes: self.header.file_bytes,
            crc: self.crc,
        }
    }

    /// Its first key.
    pub(crate) fn first_key(&self) -> &Bytes {
        match self.pages.first() {
            Some(page) => &page.entry.first_key,
            None => unreachable!(
                "a partition without a page was opened: {}",
                self.path.display()
            ),
        }
    }

    /// Size of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.header.file_bytes
    }

    /// Rows in it.
    pub(crate) fn rows(&self) -> u64 {
        self.header.rows
    }

    /// How often a page was looked into since it was opened.
    pub(crate) fn touches(&self) -> u64 {
        self.touches.load(Ordering::Relaxed)
    }

    /// Memory for directory and fingerprints, estimated.
    pub(crate) fn resident_bytes(&self) -> usize {
        let keys: usize = self
            .pages
            .iter()
            .map(|page| page.entry.first_key.len())
            .sum();
        keys + self.pages.len() * size_of::<Page>() + self.fingerprints.resident_bytes()
    }
}

/// The checksum that stands at the end of a header.
pub(crate) fn header_crc(header: &[u8]) -> u32 {
    let end = header
        .get(..FILE_HEADER_BYTES)
        .and_then(|header| header.last_chunk::<4>());
    end.map_or(0, |crc| u32::from_le_bytes(*crc))
}
