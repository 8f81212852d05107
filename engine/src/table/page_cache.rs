//! Pages of runs in memory, up to a budget.
//!
//! Owns: which checked pages stay in memory: a clock (second chance) over all runs of a store. Refuses: finding them; each
//! [`super::run::Run`] knows its own pages by weak references, so that a page is found as long as anybody holds it.
//!
//! Invariant: the pages that the cache holds are at most the budget, one page aside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::format::run::Page;
use crate::sync::{AtomicBool, Mutex};

/// Memory for pages of an open store, in bytes.
pub(super) const CACHE_BYTES: usize = 32 << 20;
/// What a cached page costs beside its bytes.
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

    /// A lookup found it: it gets a second chance.
    pub(super) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn cost(&self) -> usize {
        self.page.bytes() + OVERHEAD_BYTES
    }
}

/// The pages that are kept.
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
    /// A cache of at most `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            clock: Mutex::default(),
        }
    }

    /// Keeps a page, and lets those go that were not used for longest.
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

    /// Guards: memory stays within the budget; a page that is used outlives those that are not; one that somebody holds is
    /// there for others even where the cache has no room for it.
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
