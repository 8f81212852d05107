//! Counts of operations of each class, by result.
//!
//! Owns: [`OperationCounts`].

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::{Class, ClassCount, IoError, IoResult};

/// The counts of one class.
#[derive(Debug, Default)]
struct Counters {
    operations: AtomicU64,
    failed: AtomicU64,
    not_attempted: AtomicU64,
}

/// The counts of a backend since it was created.
#[derive(Debug)]
pub(in crate::io) struct OperationCounts {
    backend: &'static str,
    classes: [Counters; Class::ALL.len()],
}

impl OperationCounts {
    /// Starts at zero, for the backend of this name.
    pub(in crate::io) fn new(backend: &'static str) -> Self {
        Self {
            backend,
            classes: Default::default(),
        }
    }

    /// Counts an operation by its result.
    pub(in crate::io) fn count<T>(&self, class: Class, result: &IoResult<T>) {
        let Some(counters) = self.classes.get(class as usize) else {
            return;
        };
        counters.operations.fetch_add(1, Ordering::Relaxed);
        let how = match result {
            Ok(_) => return,
            // A valid answer: the caller asked whether the file exists.
            Err(IoError::Failed(cause)) if cause.kind() == ErrorKind::NotFound => return,
            Err(IoError::NotAttempted(_)) => &counters.not_attempted,
            Err(IoError::Failed(_) | IoError::SyncFailed(_)) => &counters.failed,
        };
        how.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns all counts.
    pub(in crate::io) fn read(&self) -> Vec<ClassCount> {
        let one = |(class, counters): (&Class, &Counters)| ClassCount {
            class: *class,
            backend: self.backend,
            operations: counters.operations.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            not_attempted: counters.not_attempted.load(Ordering::Relaxed),
        };
        Class::ALL.iter().zip(&self.classes).map(one).collect()
    }
}
