//! Why an admin operation failed.
//!
//! Owns: [`AdminError`] and [`NotFound`].

use serde::{Deserialize, Serialize};
use tonnage_engine::Error;

/// Why an admin operation failed. It changed nothing, unless the store itself failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A name in the request does not exist.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The request asks for more, or for less, than one request may.
    #[error("{0}")]
    Invalid(String),
    /// Other requests changed the same tags again and again meanwhile.
    #[error("other requests kept changing these tags; repeat the command")]
    Contended,
    /// A job of that kind runs, which another request started for something else.
    #[error("{name} {job} runs already, and was asked for something else; nothing was done")]
    Runs {
        /// The name of its kind.
        name: &'static str,
        /// Its number.
        job: u64,
    },
    /// The operation changes the store, which is open for reading only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A repository that does not exist, or tags or a manifest that an existing repository does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", self.describe())]
pub struct NotFound {
    /// The repository.
    pub repository: String,
    /// The missing tags.
    pub tags: Vec<String>,
    /// The digest of the missing manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

impl NotFound {
    pub(super) fn repository(name: &str) -> Self {
        Self {
            repository: name.to_owned(),
            tags: Vec::new(),
            manifest: None,
        }
    }

    /// Returns whether the repository itself is missing.
    pub fn is_repository(&self) -> bool {
        self.tags.is_empty() && self.manifest.is_none()
    }

    fn describe(&self) -> String {
        let Self {
            repository,
            tags,
            manifest,
        } = self;
        if let Some(manifest) = manifest {
            return format!("{repository} has no manifest {manifest}");
        }
        if tags.is_empty() {
            return format!("there is no repository {repository}");
        }
        format!("{repository} has no tag {}", tags.join(", no tag "))
    }
}
