//! What a disk holds after a stop: a plain value from which a new machine starts.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

use super::content::Content;

/// Directories and files by absolute path. Change it freely to damage a store on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image {
    /// Every directory, `/` included.
    pub dirs: BTreeSet<PathBuf>,
    /// Every file.
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
    /// A disk with the directory `path` and its parents, and nothing else.
    pub fn with_dir(path: impl AsRef<Path>) -> Self {
        let mut image = Self::default();
        image
            .dirs
            .extend(path.as_ref().ancestors().map(Path::to_path_buf));
        image
    }

    /// The same number for the same directories, names and bytes, in every run.
    pub fn stable_hash(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Names of all files with their sizes, one a line, for a failed test's message.
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
