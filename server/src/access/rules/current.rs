//! The rules that hold now.
//!
//! Owns: [`CurrentRules`], which all parts of access control share.

use std::path::PathBuf;
use std::sync::Arc;

use super::AccessRules;
use crate::access::reloaded::ReloadedFile;
use crate::kept_files::FileError;

/// The rules of a file that is read again when it changes; no rules without a file.
#[derive(Debug, Clone, Default)]
pub(in crate::access) struct CurrentRules {
    file: Option<Arc<ReloadedFile<AccessRules>>>,
    none: Arc<AccessRules>,
}

impl CurrentRules {
    /// Reads the file.
    pub(in crate::access) fn open(path: Option<PathBuf>) -> Result<Self, FileError> {
        let open = |path: PathBuf| ReloadedFile::open(path, false, str::parse);
        Ok(Self {
            file: path.map(open).transpose()?.map(Arc::new),
            none: Arc::default(),
        })
    }

    /// Returns the rules.
    pub(in crate::access) fn get(&self) -> Arc<AccessRules> {
        match &self.file {
            Some(file) => file.value(),
            None => Arc::clone(&self.none),
        }
    }

    /// Reads the file again. Waits for the disk.
    pub(in crate::access) fn reload(&self) {
        if let Some(file) = &self.file {
            file.reload();
        }
    }
}
