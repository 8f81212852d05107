//! Ordered scans through all layers.
//!
//! Owns: [`Scan`], a merge of the runs of rows of each layer; of equal keys the newest layer's wins.
//! Refuses: borrowing: a scan owns its snapshot and may outlive the state it was taken from.
//!
//! Invariants: keys ascend strictly; a deleted row never shows; after an error the scan is over.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Delta;
use super::base::{Base, BaseRun};
use crate::error::Result;

/// Rows that a run of a delta takes out at once: grows from the first to the second, so that a scan for one
/// row copies few.
const REFILL_ROWS: (usize, usize) = (4, 128);

/// A row on its way: key and value, or key and deletion.
pub(super) type Row = (Bytes, Option<Bytes>);

/// Both ends of a scan.
pub(super) type Bounds = (Bound<Bytes>, Bound<Bytes>);

/// Rows in ascending order of keys; see [`super::Layers::scan`].
#[derive(Debug)]
pub struct Scan {
    // Newest layer first.
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    source: Source,
    head: Option<Row>,
}

#[derive(Debug)]
enum Source {
    Delta(DeltaRun),
    Base(BaseRun),
}

impl Scan {
    pub(super) fn new(
        deltas: impl Iterator<Item = Delta>,
        base: &Arc<Base>,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Self {
        if is_empty(from, to) {
            return Self { runs: Vec::new() };
        }
        let bounds = (
            from.map(Bytes::copy_from_slice),
            to.map(Bytes::copy_from_slice),
        );
        let mut runs: Vec<Run> = deltas
            .filter(|rows| !rows.is_empty())
            .map(|rows| Run::new(Source::Delta(DeltaRun::new(rows, bounds.clone()))))
            .collect();
        runs.push(Run::new(Source::Base(BaseRun::new(
            Arc::clone(base),
            bounds,
        ))));
        Self { runs }
    }

    /// The next row, deletions included.
    fn next_row(&mut self) -> Result<Option<Row>> {
        let mut least: Option<(usize, Bytes)> = None;
        for (number, run) in self.runs.iter_mut().enumerate() {
            let Some(key) = run.peek()? else { continue };
            if least.as_ref().is_none_or(|(_, best)| key < best) {
                least = Some((number, key.clone()));
            }
        }
        let Some((newest, key)) = least else {
            return Ok(None);
        };
        let mut row = None;
        for (number, run) in self.runs.iter_mut().enumerate() {
            if run.head.as_ref().is_some_and(|(head, _)| *head == key) {
                let head = run.head.take();
                if number == newest {
                    row = head;
                }
            }
        }
        Ok(row)
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_row() {
                Ok(Some((key, Some(value)))) => return Some(Ok((key, value))),
                Ok(Some((_, None))) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.runs.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Scan {}

impl Run {
    fn new(source: Source) -> Self {
        Self { source, head: None }
    }

    fn peek(&mut self) -> Result<Option<&Bytes>> {
        if self.head.is_none() {
            self.head = match &mut self.source {
                Source::Delta(run) => run.next(),
                Source::Base(run) => run.next()?,
            };
        }
        Ok(self.head.as_ref().map(|(key, _)| key))
    }
}

/// The rows of a delta, copied out some at a time: iterators of the map would borrow it.
#[derive(Debug)]
struct DeltaRun {
    rows: Delta,
    bounds: Bounds,
    taken: VecDeque<Row>,
    refill: usize,
}

impl DeltaRun {
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

/// Bounds as the standard library's ranges want them.
pub(super) fn as_slices(bounds: &Bounds) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (
        bounds.0.as_ref().map(Bytes::as_ref),
        bounds.1.as_ref().map(Bytes::as_ref),
    )
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
