//! The content of a disk after a stop: a value from which a new machine starts.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

use super::content::Content;

/// Directories and files by absolute path. Tests change it to damage a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image {
    /// All directories, `/` included.
    pub dirs: BTreeSet<PathBuf>,
    /// All files.
    pub files: BTreeMap<PathBuf, Content>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            dirs: BTreeSet::from([PathBuf::from("/")]),
            files: BTreeMap::new(),
        }
    }
}

impl Image {
    /// Creates a disk with the directory `path` and its parents, and nothing else.
    pub fn with_dir(path: impl AsRef<Path>) -> Self {
        let mut image = Self::default();
        image
            .dirs
            .extend(path.as_ref().ancestors().map(Path::to_path_buf));
        image
    }

    /// Returns the same number for the same directories, names and bytes, in every run.
    pub fn stable_hash(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the names of all files with their sizes, one a line, for messages.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for dir in &self.dirs {
            text += &format!("{}/\n", dir.display());
        }
        for (path, content) in &self.files {
            text += &format!("{} {} bytes\n", path.display(), content.len());
        }
        text
    }
}
