//! The engine's whole public error surface.
//!
//! Owns: [`Error`], [`Corruption`]. Variants are named for what the caller does next.
//! Refuses: variants that lost their cause. Absence is `Ok(None)`, not an error.

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

/// Result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; the operation named failed alone.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was being done, a short verb phrase.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The system had no means to begin (descriptors, threads, memory, a limit of this process): nothing was changed, and the same
    /// may succeed later.
    #[error("{op} {}: not attempted: {source}; nothing was changed, {}", path.display(), remedy(source))]
    NotAttempted {
        /// What was to be done.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// No space (or quota) left for this write; reads, deletes and other stores go on.
    #[error("{op} {}: no space left for new data ({source}); free space or delete content", path.display())]
    NoSpace {
        /// What was being done.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Bytes that were announced cannot fit; none of them was written.
    #[error(
        "{announced} bytes were announced, {free} are free and {idle} are of idle uploads; free space or delete content"
    )]
    NoSpaceAnnounced {
        /// Bytes of the whole blob, as its client says.
        announced: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes of idle uploads, which give way to others.
        idle: u64,
    },
    /// Bytes on disk contradict their checksum; they are never served.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// Content did not hash to the digest it was announced as.
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
        /// The bound.
        max: u64,
    },
    /// Preconditions of a batch that do not hold; nothing was changed.
    #[error("{} precondition(s) of the commit do not hold; nothing was changed", .0.len())]
    Unmet(Vec<Require>),
    /// No such upload in that repository: it never was, ended, expired, or was not durable at a crash.
    #[error("no such upload")]
    UnknownUpload,
    /// Another request is writing to this upload, or took over from this one.
    #[error("another request is writing to this upload")]
    UploadBusy,
    /// The request's bytes do not continue the upload.
    #[error("the request begins at byte {first}, but the upload has {offset} bytes")]
    OutOfOrder {
        /// Where the request begins.
        first: u64,
        /// Where it would have to.
        offset: u64,
    },
    /// The bound on unfinished uploads is reached.
    #[error(
        "{max} uploads are unfinished, which is the limit; finish or cancel some, or try again when idle ones have expired"
    )]
    TooManyUploads {
        /// The bound.
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
    /// The directory holds something else than a store.
    #[error("{} is not a Tonnage store: {why}; nothing in it was touched", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The store was written by a newer program, or needs a feature this one lacks.
    #[error("{} needs {needs}; this program supports {supports}. Use a newer tonnage; nothing was touched", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// What the store needs.
        needs: String,
        /// What this program has.
        supports: String,
    },
    /// A write or sync of the journal or a shared segment failed earlier: no more writes until reopened.
    #[error(
        "the store takes no writes since an earlier failure ({cause}); reads go on. Check the drive, then restart"
    )]
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },
    /// Options out of their bounds, all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    BadOptions(Vec<BadOption>),
    /// A read needs rows that are in no memory of this process or of the kernel. Never leaves the engine: whoever may wait loads them
    /// and reads again.
    #[error("rows have to be read from the disk first")]
    NotResident(Arc<dyn Absent>),
    /// The store is closing.
    #[error("the store is closing")]
    Closed,
}

/// What a read needs and is not in memory.
pub trait Absent: std::fmt::Debug + Send + Sync {
    /// Reads it from the disk. It stays in memory while what this resolves to lives.
    fn load(&self) -> Pin<Box<dyn Future<Output = Result<InMemory>> + Send>>;
}

/// Keeps in memory what was loaded.
pub(crate) type InMemory = Arc<dyn Any + Send + Sync>;

/// Bytes on disk that contradict their checksum or structure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is corrupt at byte {offset}: {what}", path.display())]
pub struct Corruption {
    /// File.
    pub path: PathBuf,
    /// Offset of the structure that does not hold.
    pub offset: u64,
    /// What does not hold, with expected and found values.
    pub what: String,
}

impl Error {
    /// Wraps an error of the seam: not attempted becomes [`Error::NotAttempted`], no space [`Error::NoSpace`], anything else
    /// [`Error::Io`].
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

    /// A corruption at `offset` of `path`.
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt(Corruption {
            path: path.to_path_buf(),
            offset,
            what: what.into(),
        })
    }

    /// A row of the index or catalog that does not decode. Runs are caches: deleting `runs/` and the
    /// checkpoints while the store is closed rebuilds them from the journal.
    pub(crate) fn bad_row(key: &[u8], what: &Malformed) -> Self {
        use std::fmt::Write as _;
        let key = key.iter().take(24).fold(String::new(), |mut out, byte| {
            // Writing to a String cannot fail.
            write!(out, "{byte:02x}").unwrap_or_default();
            out
        });
        Self::corrupt(Path::new("runs"), 0, format!("row {key}: {what}"))
    }

    /// The failure itself, where the store was not open yet and could not take writes anyway.
    pub(crate) fn unpoisoned(self) -> Self {
        if let Self::Poisoned { cause } = self {
            (*cause).clone()
        } else {
            self
        }
    }

    /// Whether the failure is that a file or directory is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the failure is that this process may not touch a file or directory, or nobody can as it wanted to: no permission, read-only,
    /// an operation that the file system does not have.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        let kinds = [
            PermissionDenied,
            ReadOnlyFilesystem,
            InvalidInput,
            Unsupported,
        ];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }

    /// Whether nothing was begun, so that nothing is known against the disk.
    pub fn is_not_attempted(&self) -> bool {
        matches!(self, Self::NotAttempted { .. })
    }

    /// Whether a limit of this process on the size of files is in the way.
    pub(crate) fn is_beyond_file_size(&self) -> bool {
        matches!(self, Self::NotAttempted { source, .. } if source.kind() == io::ErrorKind::FileTooLarge)
    }

    /// Whether nothing was begun because too many files are open: in this process, in the system, or of the store, by its own bound,
    /// which has no number of the system.
    pub fn is_out_of_files(&self) -> bool {
        let numbers = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
        matches!(self, Self::NotAttempted { source, .. }
            if source.raw_os_error().is_none_or(|number| numbers.contains(&number)))
    }

    /// Whether the failure is that no space was left.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::NoSpaceAnnounced { .. })
    }
}

/// What to do about an operation that was not attempted.
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
