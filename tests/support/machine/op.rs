//! One operation of the simulated disk, as it is called and as the log records it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tonnage_engine::io::Call;

use super::fault::OpKind;

/// One operation that took effect or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRecord {
    /// Its number among the crash points, if it is one; the first is 1.
    pub point: Option<u64>,
    /// Its class, and the line of the engine that called it.
    pub call: Call,
    /// Its kind.
    pub kind: OpKind,
    /// The file or directory.
    pub path: PathBuf,
    /// The offset; 0 if there is none.
    pub offset: u64,
    /// Bytes moved, or the size set or reserved.
    pub length: u64,
    /// The error code, if it failed.
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

/// An operation before it takes effect.
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
