//! Ordered scans through all layers.
//!
//! Owns: [`Scan`], which merges the rows of the layers; of equal keys the newest layer's counts. A merge of runs uses
//! it, too. Refuses: borrowing: a scan owns its snapshot and may outlive the state it was taken from. Waiting: see
//! [`super::resident()`].
//!
//! Invariants: keys ascend strictly; deleted rows are skipped. An error ends the scan. After [`Error::NotResident`] it
//! continues at the same row, once the page is in memory.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Delta;
use super::cursor::{Bounds, RunCursor, as_slices};
use super::filter::KeyHash;
use super::run::Run;
use crate::error::{Error, Result};

/// Rows that a cursor over a delta copies at a time. Starts at the first number and grows to the second, so that a scan
/// for one row copies few.
const REFILL_ROWS: (usize, usize) = (4, 128);

/// A row: key and value, or key and deletion.
pub(super) type Row = (Bytes, Option<Bytes>);

/// Rows in ascending order of keys; see [`super::Layers::scan_prefix`].
#[derive(Debug)]
pub(crate) struct Scan {
    /// The layers, newest first.
    sources: Vec<Cursor>,
    /// The next row of each source that was read and has one.
    heads: BinaryHeap<Reverse<Head>>,
    /// Sources whose next row was not read yet.
    unread: Vec<usize>,
}

/// The next row of a source. Ordered by key, then the newest layer first; no two heads have the same key and source.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    key: Bytes,
    source: usize,
    value: Option<Bytes>,
}

#[derive(Debug)]
enum Cursor {
    Delta(DeltaCursor),
    Run(RunCursor),
}

impl Scan {
    /// Creates a scan over `deltas` and `runs`, newest first, between two bounds. With `group`, runs without a row of
    /// that filter key are left out.
    pub(super) fn new(
        deltas: impl Iterator<Item = Delta>,
        runs: &[Arc<Run>],
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        group: Option<KeyHash>,
    ) -> Self {
        if is_empty(from, to) {
            return Self::of(std::iter::empty());
        }
        let bounds = (
            from.map(Bytes::copy_from_slice),
            to.map(Bytes::copy_from_slice),
        );
        let deltas = deltas
            .filter(|rows| !rows.is_empty())
            .map(|rows| Cursor::Delta(DeltaCursor::new(rows, bounds.clone())));
        let runs = runs
            .iter()
            .filter(|run| group.is_none_or(|group| run.may_have(group)))
            .map(|run| Cursor::Run(RunCursor::new(Arc::clone(run), bounds.clone())));
        Self::of(deltas.chain(runs))
    }

    /// Creates a scan over all rows of `runs`, newest first, for a merge, which reads the pages of its cursors ahead.
    pub(super) fn for_merge(runs: &[Arc<Run>]) -> Self {
        let runs = runs.iter().cloned().map(RunCursor::for_merge);
        Self::of(runs.map(Cursor::Run))
    }

    /// Creates a scan over all rows of a delta.
    pub(super) fn of_delta(rows: Delta) -> Self {
        let bounds = (Bound::Unbounded, Bound::Unbounded);
        Self::of(std::iter::once(Cursor::Delta(DeltaCursor::new(
            rows, bounds,
        ))))
    }

    fn of(cursors: impl Iterator<Item = Cursor>) -> Self {
        let sources: Vec<Cursor> = cursors.collect();
        Self {
            heads: BinaryHeap::with_capacity(sources.len()),
            unread: (0..sources.len()).collect(),
            sources,
        }
    }

    /// Returns the next row, deletions included.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>> {
        self.read_heads()?;
        let Some(Reverse(newest)) = self.heads.pop() else {
            return Ok(None);
        };
        self.unread.push(newest.source);
        // Older rows of the same key do not count.
        while let Some(older) = self.heads.peek_mut()
            && older.0.key == newest.key
        {
            let Reverse(older) = PeekMut::pop(older);
            self.unread.push(older.source);
        }
        Ok(Some((newest.key, newest.value)))
    }

    /// Reads the next row of each source that has no head.
    fn read_heads(&mut self) -> Result<()> {
        while let Some(&source) = self.unread.last() {
            // After an error the source stays in the list: after `NotResident` the next call reads the same row again.
            let row = match self.sources.get_mut(source) {
                Some(cursor) => cursor.next()?,
                None => None,
            };
            if let Some((key, value)) = row {
                self.heads.push(Reverse(Head { key, source, value }));
            }
            self.unread.pop();
        }
        Ok(())
    }

    /// Returns the run cursors that need their next window: for a merge, which reads it.
    pub(super) fn waiting(&mut self) -> impl Iterator<Item = &mut RunCursor> {
        self.sources.iter_mut().filter_map(|source| match source {
            Cursor::Run(cursor) if cursor.needs_window() => Some(cursor),
            Cursor::Run(_) | Cursor::Delta(_) => None,
        })
    }

    /// Returns the next row, and waits for the disk where needed.
    pub(crate) async fn next_resident(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let mut held = Vec::new();
        loop {
            match self.next() {
                Some(Err(Error::NotResident(page))) => {
                    let for_merge = self.waiting().next().is_some();
                    assert!(!for_merge, "a merge reads its windows itself");
                    held.push(page.load().await?);
                }
                next => return next.transpose(),
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_row() {
                // Copied: a slice of a page would keep the whole page in memory.
                Ok(Some((key, Some(value)))) => {
                    let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
                    return Some(Ok((copy(key), copy(value))));
                }
                Ok(Some((_, None))) => {}
                Ok(None) => return None,
                Err(error) => {
                    if !matches!(error, Error::NotResident(_)) {
                        *self = Self::of(std::iter::empty());
                    }
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Cursor {
    fn next(&mut self) -> Result<Option<Row>> {
        match self {
            Self::Delta(cursor) => Ok(cursor.next()),
            Self::Run(cursor) => cursor.next(),
        }
    }
}

/// The rows of a delta, copied some at a time, because iterators of the map would borrow it.
#[derive(Debug)]
struct DeltaCursor {
    rows: Delta,
    bounds: Bounds,
    taken: VecDeque<Row>,
    refill: usize,
}

impl DeltaCursor {
    fn new(rows: Delta, bounds: Bounds) -> Self {
        Self {
            rows,
            bounds,
            taken: VecDeque::new(),
            refill: REFILL_ROWS.0,
        }
    }

    fn next(&mut self) -> Option<Row> {
        if self.taken.is_empty() && self.refill > 0 {
            let (from, to) = as_slices(&self.bounds);
            if !is_empty(from, to) {
                let rows = self.rows.range::<_, [u8]>((from, to)).take(self.refill);
                self.taken
                    .extend(rows.map(|(key, value)| (key.clone(), value.clone())));
            }
            match self.taken.back() {
                Some((last, _)) if self.taken.len() == self.refill => {
                    self.bounds.0 = Bound::Excluded(last.clone());
                    self.refill = (self.refill * 2).min(REFILL_ROWS.1);
                }
                // Fewer than asked for: these are the last.
                Some(_) | None => self.refill = 0,
            }
        }
        self.taken.pop_front()
    }
}

/// Whether no key can lie between the bounds.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
