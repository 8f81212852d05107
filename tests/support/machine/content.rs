//! The bytes of a simulated file: sparse pages that copies share until one is written.
//!
//! Invariant: bytes at and after the length are zero in every stored page, so that growth of the file reveals only
//! zeros.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

const PAGE_BYTES: usize = 4096;
const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// A page, and the sum of its bytes once it was computed: images share most of their pages.
#[derive(Clone)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    sum: OnceLock<u64>,
}

impl Page {
    fn zeros() -> Arc<Self> {
        Arc::new(Self {
            bytes: ZEROS,
            sum: OnceLock::new(),
        })
    }

    /// Returns the sum; 0 for a page of zeros, which equals a missing page.
    fn sum(&self) -> u64 {
        *self.sum.get_or_init(|| {
            if self.bytes == ZEROS {
                return 0;
            }
            let hash = blake3::hash(&self.bytes);
            hash.as_bytes()
                .first_chunk()
                .map_or(1, |first| u64::from_le_bytes(*first))
                .max(1)
        })
    }

    /// Returns the bytes of a page for a change, after copying a shared one.
    fn change(page: &mut Arc<Self>) -> &mut [u8; PAGE_BYTES] {
        let page = Arc::make_mut(page);
        page.sum = OnceLock::new();
        &mut page.bytes
    }
}

/// The content of a file. It is cheap to copy, and equal if length and bytes are.
#[derive(Clone, Default)]
pub struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes)", self.len)
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }
}

impl Content {
    /// Returns the size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// Copies bytes from `offset` on into `target`. Returns their number.
    pub fn read(&self, offset: u64, target: &mut [u8]) -> usize {
        let there = self.len.saturating_sub(offset).min(target.len() as u64) as usize;
        for (page, within, range) in pieces(offset, there) {
            let part = &mut target[range];
            match self.pages.get(&page) {
                Some(page) => part.copy_from_slice(&page.bytes[within..within + part.len()]),
                None => part.fill(0),
            }
        }
        there
    }

    /// Writes `bytes` at `offset`; the file grows to their end.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, within, range) in pieces(offset, bytes.len()) {
            let part = &bytes[range];
            let kept = self.pages.entry(page).or_insert_with(Page::zeros);
            Page::change(kept)[within..within + part.len()].copy_from_slice(part);
        }
        if !bytes.is_empty() {
            self.grow(offset + bytes.len() as u64);
        }
    }

    /// Makes the file at least `len` bytes long.
    pub fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Cuts or extends the file to `len` bytes.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (last, within) = (len / PAGE_BYTES as u64, (len % PAGE_BYTES as u64) as usize);
            self.pages.split_off(&(last + u64::from(within > 0)));
            if within > 0
                && let Some(page) = self.pages.get_mut(&last)
            {
                Page::change(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    fn written(&self) -> impl Iterator<Item = (u64, &Page)> {
        let pages = self.pages.iter().map(|(number, page)| (*number, &**page));
        pages.filter(|(_, page)| page.sum() != 0)
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |(number, page): (u64, &Page)| (number, page.bytes);
        self.len == other.len && self.written().map(bytes).eq(other.written().map(bytes))
    }
}

impl Eq for Content {}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        for (number, page) in self.written() {
            number.hash(state);
            page.sum().hash(state);
        }
    }
}

/// Splits a range of the file at page borders: page number, offset in the page, range of the caller's bytes.
fn pieces(offset: u64, count: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == count {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES as u64) as usize;
        let end = count.min(done + PAGE_BYTES - within);
        let piece = (at / PAGE_BYTES as u64, within, done..end);
        done = end;
        Some(piece)
    })
}
