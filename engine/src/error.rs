//! The errors of the engine.
//!
//! Owns: [`Error`], [`Corruption`]. Variants are named for what the caller does next. Refuses: variants without their
//! cause. Absence is `Ok(None)`, not an error.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::format::codec::Malformed;
use crate::io::IoError;
use crate::options::BadOption;
use crate::vocabulary::Require;

/// The result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system failed an operation; nothing else is affected.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// Operation, as a short verb phrase.
        op: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: Arc<io::Error>,
    },
    /// The system could not begin the operation (descriptors, threads, memory, a limit of this process). Nothing was
    /// changed, and the same may succeed later.
    #[error("{op} {}: not attempted: {source}; nothing was changed, {}", path.display(), remedy(source))]
    NotAttempted {
        /// Operation, as a short verb phrase.
        op: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: Arc<io::Error>,
    },
    /// No space (or quota) is left for this write. Reads and deletes still work.
    #[error("{op} {}: no space left for new data ({source}); free space or delete content", path.display())]
    NoSpace {
        /// Operation, as a short verb phrase.
        op: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: Arc<io::Error>,
    },
    /// Less space is free than uploads must leave; the request was refused before its bytes were received. Reads,
    /// deletes and small commits still work.
    #[error(
        "{free} bytes are free on the disk, fewer than the {min} that uploads must leave; free space or delete content"
    )]
    NearlyFull {
        /// Bytes that are free.
        free: u64,
        /// The low watermark ([`crate::Options::free_space_min_bytes`]).
        min: u64,
    },
    /// Announced bytes cannot fit; none of them was written.
    #[error(
        "{announced} bytes were announced, {free} are free for uploads and {idle} are of idle ones; free space or delete content"
    )]
    NoSpaceAnnounced {
        /// Size of the whole blob in bytes, as its client announced it.
        announced: u64,
        /// Bytes that are free above the low watermark.
        free: u64,
        /// Bytes of idle uploads, which are dropped when others need the space.
        idle: u64,
    },
    /// Bytes on disk contradict their checksum; they are never served.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// Content does not have the digest that was announced.
    #[error("content is {found}, not {expected}")]
    DigestMismatch {
        /// The digest the caller gave.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// Something exceeds a bound of `limits.rs` or of the options.
    #[error("{what} is {length} bytes, more than the {max} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes or count.
        length: u64,
        /// Largest size or count allowed.
        max: u64,
    },
    /// Some preconditions of a batch do not hold; nothing was changed.
    #[error("{} precondition(s) of the commit do not hold; nothing was changed", .0.len())]
    Unmet(Vec<Require>),
    /// The upload does not exist in that repository: it never did, ended, expired, or was not durable at a crash.
    #[error("no such upload")]
    UnknownUpload,
    /// Another request is writing to this upload, or took over from this one.
    #[error("another request is writing to this upload")]
    UploadBusy,
    /// The request's bytes do not continue the upload.
    #[error("the request begins at byte {first}, but the upload has {offset} bytes")]
    OutOfOrder {
        /// First byte of the request.
        first: u64,
        /// Byte at which it would have to begin.
        offset: u64,
    },
    /// The limit on unfinished uploads is reached.
    #[error(
        "{max} uploads are unfinished, which is the limit; finish or cancel some, or try again when idle ones have expired"
    )]
    TooManyUploads {
        /// The limit.
        max: usize,
    },
    /// The store is locked by another process.
    #[error("{} is in use by {}; stop it or use another --data", path.display(), holder(*pid))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The holder, where it is known.
        pid: Option<u32>,
    },
    /// The directory holds something other than a store.
    #[error("{} is not a Tonnage store: {why}; nothing in it was touched", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The store was written by a newer program, or needs a feature that this one does not have.
    #[error("{} needs {needs}; this program supports {supports}. Use a newer tonnage; nothing was touched", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// What the store needs.
        needs: String,
        /// What this program has.
        supports: String,
    },
    /// A write or sync of the journal or of a shared segment failed earlier: no more writes until the store is opened
    /// again.
    #[error(
        "the store accepts no writes since an earlier failure ({cause}); reads continue. Check the drive, then restart"
    )]
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },
    /// Options are out of their bounds; all of them are listed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    BadOptions(Vec<BadOption>),
    /// A read needs rows that are neither in this process nor in the kernel's page cache. Never leaves the engine: a
    /// caller that may wait loads them and reads again.
    #[error("rows have to be read from the disk first")]
    NotResident(Arc<dyn Absent>),
    /// The store is closing.
    #[error("the store is closing")]
    Closed,
    /// An operator cancelled the job.
    #[error("the job was cancelled")]
    Cancelled,
    /// An operator paused work that the store repeats by itself. Never leaves the engine: its task begins it again.
    #[error("the job was paused")]
    Paused,
}

/// A page that a read needs and that is not in memory.
pub trait Absent: std::fmt::Debug + Send + Sync {
    /// Reads it from the disk. It stays in memory as long as the result is held.
    fn load(&self) -> Pin<Box<dyn Future<Output = Result<InMemory>> + Send>>;
}

/// Keeps a loaded page in memory.
pub(crate) type InMemory = Arc<dyn Any + Send + Sync>;

/// Bytes on disk that contradict their checksum or structure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is corrupt at byte {offset}: {what}", path.display())]
pub struct Corruption {
    /// File.
    pub path: PathBuf,
    /// Offset of the damaged structure.
    pub offset: u64,
    /// What is wrong, with expected and found values.
    pub what: String,
}

impl Error {
    /// Wraps an error of the seam: not attempted becomes [`Error::NotAttempted`], no space [`Error::NoSpace`], anything
    /// else [`Error::Io`].
    pub(crate) fn io(op: &'static str, path: &Path, source: impl Into<IoError>) -> Self {
        let (source, path) = (source.into(), path.to_path_buf());
        let attempted = source.was_attempted();
        let source = Arc::new(source.into_cause());
        let full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        match (attempted, full) {
            (false, _) => Self::NotAttempted { op, path, source },
            (true, true) => Self::NoSpace { op, path, source },
            (true, false) => Self::Io { op, path, source },
        }
    }

    /// Wraps an error of an operation that is not repeated, whatever the cause, as [`Error::Io`].
    pub(crate) fn final_io(op: &'static str, path: &Path, source: IoError) -> Self {
        Self::Io {
            op,
            path: path.to_path_buf(),
            source: Arc::new(source.into_cause()),
        }
    }

    /// Creates the error of a corruption at `offset` of `path`.
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt(Corruption {
            path: path.to_path_buf(),
            offset,
            what: what.into(),
        })
    }

    /// Creates the error of a row of the index or catalog that does not decode. Runs are caches: deleting `runs/` and
    /// the checkpoints while the store is closed rebuilds them from the journal.
    pub(crate) fn bad_row(key: &[u8], what: &Malformed) -> Self {
        use std::fmt::Write as _;
        let key = key.iter().take(24).fold(String::new(), |mut out, byte| {
            // Writing to a String cannot fail.
            write!(out, "{byte:02x}").unwrap_or_default();
            out
        });
        Self::corrupt(Path::new("runs"), 0, format!("row {key}: {what}"))
    }

    /// Returns the cause of a poisoned store, for an open that fails: there the store never accepted writes.
    pub(crate) fn unpoisoned(self) -> Self {
        if let Self::Poisoned { cause } = self {
            (*cause).clone()
        } else {
            self
        }
    }

    /// Whether a file or directory does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether this process may not use a file or directory in this way: no permission, read-only, or not supported by
    /// the file system.
    pub(crate) fn is_inaccessible(&self) -> bool {
        use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        let kinds = [
            PermissionDenied,
            ReadOnlyFilesystem,
            InvalidInput,
            Unsupported,
        ];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }

    /// Whether the operation was not begun, so that the disk may be intact.
    pub fn is_not_attempted(&self) -> bool {
        matches!(self, Self::NotAttempted { .. })
    }

    /// Whether the limit of this process on file size was exceeded.
    pub(crate) fn is_beyond_file_size(&self) -> bool {
        matches!(self, Self::NotAttempted { source, .. } if source.kind() == io::ErrorKind::FileTooLarge)
    }

    /// Whether the operation was not begun because too many files are open: in this process, in the system, or in the
    /// store by its own bound, which has no error number.
    pub fn is_out_of_files(&self) -> bool {
        let numbers = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
        matches!(self, Self::NotAttempted { source, .. }
            if source.raw_os_error().is_none_or(|number| numbers.contains(&number)))
    }

    /// Whether no space was left, or less than uploads must leave.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. } | Self::NoSpaceAnnounced { .. } | Self::NearlyFull { .. }
        )
    }
}

/// Returns the advice for an operation that was not attempted.
fn remedy(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::FileTooLarge {
        "raise the limit of a file's size (ulimit -f)"
    } else {
        "try again"
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}
