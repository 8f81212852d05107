//! The rows of one run in order.
//!
//! Owns: [`RunCursor`]: which page comes next, and the row in it. Pages of lookups come from the run. Those of a merge
//! are read ahead into the cursor, so that reading a whole run neither fills the page cache nor needs it.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::open::{Window, split, window};
use super::page_cache::CachedPage;
use super::run::Run;
use super::scan::Row;
use crate::buffer::Buffer;
use crate::error::Result;
use crate::format::run::Page;
use crate::io::{Class, exact};

/// The bounds of a scan.
pub(super) type Bounds = (Bound<Bytes>, Bound<Bytes>);

/// Rows of a run between two bounds, ascending.
#[derive(Debug)]
pub(super) struct RunCursor {
    run: Arc<Run>,
    bounds: Bounds,
    /// The current page, and the number of its next row.
    current: Option<(Arc<CachedPage>, usize)>,
    next_page: usize,
    /// Pages that were read ahead and not checked yet, in order from `next_page` on. `None`: pages come from the run.
    prefetched: Option<VecDeque<Bytes>>,
    /// The next page has to be read with [`RunCursor::read_window`].
    needs_window: bool,
}

impl RunCursor {
    pub(super) fn new(run: Arc<Run>, bounds: Bounds) -> Self {
        let next_page = match &bounds.0 {
            Bound::Included(from) | Bound::Excluded(from) => run.page_of(from).unwrap_or_default(),
            Bound::Unbounded => 0,
        };
        Self {
            run,
            bounds,
            current: None,
            next_page,
            prefetched: None,
            needs_window: false,
        }
    }

    /// Creates a cursor over all rows, whose pages are read with [`RunCursor::read_window`].
    pub(super) fn for_merge(run: Arc<Run>) -> Self {
        let mut cursor = Self::new(run, (Bound::Unbounded, Bound::Unbounded));
        cursor.prefetched = Some(VecDeque::new());
        cursor
    }

    /// Returns the next row.
    ///
    /// # Errors
    /// [`crate::Error::NotResident`] if its page has to be read first.
    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some((cached, at)) = &mut self.current {
                if let Some((key, value)) = cached.page.row(*at) {
                    *at += 1;
                    let (_, to) = as_slices(&self.bounds);
                    if !RangeBounds::<[u8]>::contains(&(Bound::Unbounded, to), key) {
                        self.finish();
                        return Ok(None);
                    }
                    let share = |part: &[u8]| cached.page.share(part);
                    return Ok(Some((share(key), value.map(share))));
                }
                self.current = None;
            }
            if self.is_past_the_end() {
                return Ok(None);
            }
            let page = self.page()?;
            let first = self.first_row(&page.page);
            self.current = Some((page, first));
            self.next_page += 1;
        }
    }

    /// Ends the cursor.
    fn finish(&mut self) {
        self.current = None;
        self.next_page = self.run.pages.len();
    }

    fn is_past_the_end(&self) -> bool {
        let Some(entry) = self.run.pages.get(self.next_page) else {
            return true;
        };
        match &self.bounds.1 {
            Bound::Included(to) => entry.first_key > to,
            Bound::Excluded(to) => entry.first_key >= to,
            Bound::Unbounded => false,
        }
    }

    /// Returns the number of the first row of a page that is not before the lower bound.
    fn first_row(&self, page: &Page) -> usize {
        match &self.bounds.0 {
            Bound::Unbounded => 0,
            Bound::Included(from) => page.lower_bound(from),
            Bound::Excluded(from) => {
                let at = page.lower_bound(from);
                at + usize::from(page.row(at).is_some_and(|(key, _)| key == from))
            }
        }
    }

    fn page(&mut self) -> Result<Arc<CachedPage>> {
        let Some(prefetched) = &mut self.prefetched else {
            return self.run.try_page(self.next_page);
        };
        let Some(bytes) = prefetched.pop_front() else {
            self.needs_window = true;
            return Err(self.run.not_resident(self.next_page));
        };
        let page = self
            .run
            .decode_page(self.run.entry(self.next_page)?, bytes)?;
        Ok(Arc::new(CachedPage::new(page)))
    }

    /// Whether [`RunCursor::read_window`] has to be called before the next row.
    pub(super) fn needs_window(&self) -> bool {
        self.needs_window
    }

    /// Reads the next pages from the disk, one window.
    pub(super) async fn read_window(&mut self) -> Result<()> {
        let run = &self.run;
        let Some(Window {
            pages,
            offset,
            bytes,
        }) = window(&run.pages, self.next_page)
        else {
            return Ok(());
        };
        let read = exact::read_exact(
            &*run.file,
            Class::Background.call(),
            offset,
            Buffer::unpooled(bytes),
        );
        let read = read.await.map_err(|error| run.unreadable(error))?.freeze();
        let entries = run.pages.get(pages).unwrap_or_default();
        let prefetched = self.prefetched.get_or_insert_default();
        prefetched.extend(split(entries, &read));
        self.needs_window = false;
        Ok(())
    }
}

/// Returns bounds in the form that ranges of the standard library take.
pub(super) fn as_slices(bounds: &Bounds) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (
        bounds.0.as_ref().map(Bytes::as_ref),
        bounds.1.as_ref().map(Bytes::as_ref),
    )
}
