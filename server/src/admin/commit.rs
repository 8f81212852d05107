//! Commits of admin operations.
//!
//! Owns: [`commit`], and the actor that the journal records for it.

use tonnage_engine::{Batch, Change, Error, Origin, Require, Store};

/// The actor in the journal.
const ACTOR: &str = "operator";

/// Commits changes of an existing repository. Returns false if a precondition does not hold, because another request
/// changed the repository.
pub(super) async fn commit(
    store: &Store,
    repository: &str,
    requires: Vec<Require>,
    changes: Vec<Change>,
) -> Result<bool, Error> {
    let batch = Batch {
        repository: repository.to_owned(),
        create_repository: false,
        requires,
        staged: Vec::new(),
        changes,
        origin: Origin {
            actor: ACTOR.to_owned(),
            request: String::new(),
        },
    };
    match store.commit(batch).await {
        Ok(_) => Ok(true),
        Err(Error::Unmet(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
