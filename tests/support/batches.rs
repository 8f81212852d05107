//! Batches for tests that push.

use tonnage_engine::{Batch, Change, FinishedBlob, Origin};

/// Returns a batch without preconditions for a repository that is created if it is missing.
pub fn batch_of(
    repository: &str,
    staged: Vec<FinishedBlob>,
    changes: Vec<Change>,
) -> Batch<FinishedBlob> {
    Batch {
        repository: repository.to_owned(),
        create_repository: true,
        requires: Vec::new(),
        staged,
        changes,
        origin: Origin::default(),
    }
}
