//! One operation of the simulated disk: as it was asked for, and as the log keeps it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tonnage_engine::io::Call;

use super::fault::OpKind;

/// One operation that took effect or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRecord {
    /// Its number among the crash points, where it is one; the first is 1.
    pub point: Option<u64>,
    /// What it was for, and which line of the engine asked for it.
    pub call: Call,
    /// What it did.
    pub kind: OpKind,
    /// To which file or directory.
    pub path: PathBuf,
    /// From which offset; 0 where there is none.
    pub offset: u64,
    /// Bytes moved, or the size set or reserved.
    pub length: u64,
    /// Code it failed with.
    pub errno: Option<i32>,
}

impl fmt::Display for OpRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.point {
            Some(point) => write!(f, "{point:>5} ")?,
            None => write!(f, "      ")?,
        }
        write!(
            f,
            "{} {:?} {} {}+{}",
            self.call.class.name(),
            self.kind,
            self.path.display(),
            self.offset,
            self.length
        )?;
        match self.errno {
            Some(errno) => write!(f, " failed: {}", io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

/// An operation before it took effect.
pub(super) struct Op {
    pub(super) call: Call,
    pub(super) kind: OpKind,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// It was begun together with the one before it, so it is certainly attempted.
    pub(super) linked: bool,
}

impl Op {
    pub(super) fn new(call: Call, kind: OpKind, path: &Path) -> Self {
        Self {
            call,
            kind,
            path: path.to_owned(),
            offset: 0,
            length: 0,
            linked: false,
        }
    }

    pub(super) fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    pub(super) fn at(mut self, offset: u64, length: u64) -> Self {
        self.offset = offset;
        self.length = length;
        self
    }
}
