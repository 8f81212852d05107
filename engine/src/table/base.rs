//! The rows on disk, as one ordered set.
//!
//! Owns: [`Base`], the list of mapped partitions in key order.
//! Refuses: changes; a checkpoint builds a new base from an old one.

use std::sync::Arc;

use bytes::Bytes;

use super::scan::{Bounds, Row};
use crate::error::Result;

/// Immutable rows on disk.
#[derive(Debug)]
pub struct Base {
    rows: u64,
}

impl Base {
    /// No rows: a new store, or one whose base files are gone.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self { rows: 0 })
    }

    /// Rows in all partitions.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn get(&self, _key: &[u8]) -> Result<Option<Bytes>> {
        assert_eq!(self.rows, 0, "partitions are read by their own module");
        Ok(None)
    }
}

/// The rows of the base between two bounds.
#[derive(Debug)]
pub(super) struct BaseRun {
    base: Arc<Base>,
}

impl BaseRun {
    pub(super) fn new(base: Arc<Base>, _bounds: Bounds) -> Self {
        Self { base }
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        assert_eq!(self.base.rows, 0, "partitions are read by their own module");
        Ok(None)
    }
}
