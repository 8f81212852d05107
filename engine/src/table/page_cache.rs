//! Pages of runs in memory, up to a budget.
//!
//! Owns: which checked pages stay in memory: a clock (second chance) over all runs of a store. Refuses: finding them.
//! Each [`super::run::Run`] has weak references to its own pages, so that a page is found as long as it is in use.
//!
//! Invariant: the pages in the cache take at most the budget, except for one page.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::format::run::Page;
use crate::sync::{AtomicBool, Mutex};

/// Memory for pages of an open store, in bytes.
pub(super) const CACHE_BYTES: usize = 32 << 20;
/// Memory that a cached page takes beyond its bytes.
const OVERHEAD_BYTES: usize = 128;

/// A page, and whether it was used since the clock passed it.
#[derive(Debug)]
pub(crate) struct CachedPage {
    pub(super) page: Page,
    used: AtomicBool,
}

impl CachedPage {
    pub(super) fn new(page: Page) -> Self {
        Self {
            page,
            used: AtomicBool::new(false),
        }
    }

    /// Marks the page as used, which gives it a second chance.
    pub(super) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn cost(&self) -> usize {
        self.page.bytes() + OVERHEAD_BYTES
    }
}

/// The pages that are kept in memory.
#[derive(Debug)]
pub(crate) struct PageCache {
    budget: usize,
    clock: Mutex<Clock>,
}

#[derive(Debug, Default)]
struct Clock {
    pages: VecDeque<Arc<CachedPage>>,
    bytes: usize,
}

impl PageCache {
    /// Creates a cache of at most `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            clock: Mutex::default(),
        }
    }

    /// Keeps a page, and evicts pages that were not used recently.
    pub(super) fn keep(&self, page: Arc<CachedPage>) {
        let mut clock = self.clock.lock();
        clock.bytes += page.cost();
        clock.pages.push_back(page);
        while clock.bytes > self.budget && clock.pages.len() > 1 {
            let Some(oldest) = clock.pages.pop_front() else {
                break;
            };
            if oldest.used.swap(false, Ordering::Relaxed) {
                clock.pages.push_back(oldest);
            } else {
                clock.bytes -= oldest.cost();
            }
        }
    }
}

impl Default for PageCache {
    fn default() -> Self {
        Self::new(CACHE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::run::{PagePlace, PageWriter};

    fn page() -> Arc<CachedPage> {
        let place = PagePlace {
            store_id: [0; 16],
            file_id: 1,
            offset: 4096,
        };
        let mut writer = PageWriter::default();
        writer.push(b"k", Some(&[0; 1000]));
        let (bytes, crc) = writer.finish(place);
        Arc::new(CachedPage::new(
            Page::open(bytes.into(), place, crc).unwrap(),
        ))
    }

    /// Guards: memory stays within the budget; a used page outlives unused ones; a page in use elsewhere is not owned
    /// by a cache without room.
    #[test]
    fn used_pages_outlive_others() {
        let cost = page().cost();
        let cache = PageCache::new(4 * cost);
        let used = page();
        let seen = Arc::downgrade(&used);
        cache.keep(used);
        for _ in 0..20 {
            seen.upgrade().unwrap().touch();
            cache.keep(page());
            assert!(cache.clock.lock().bytes <= 4 * cost);
        }
        for _ in 0..20 {
            cache.keep(page());
        }
        assert!(seen.upgrade().is_none(), "unused, it had its second chance");
        let tiny = PageCache::new(0);
        let held = page();
        tiny.keep(Arc::clone(&held));
        tiny.keep(page());
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(tiny.clock.lock().bytes, cost);
    }
}
