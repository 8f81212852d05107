//! The bound on open files of blobs.
//!
//! Owns: [`OpenFiles`], their count and bound, and [`OpenFile`], one of them. Refuses: opening and closing (`files`).
//!
//! Reads leave a quarter to uploads, and uploads a quarter to reads, so neither stops the other by keeping files for
//! long. Among reads, those whose clients take nothing are ended for others (`files`). Commits and work of
//! the store itself are never rejected; the few segments that they use are counted beside the bound
//! ([`crate::options::DESCRIPTORS_BESIDE_BLOBS`]).

use std::io;
use std::sync::Arc;

use crate::io::IoError;
use crate::sync::Mutex;

/// What a file is open for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Small blobs of many pushes.
    Commit,
    /// A segment that the store itself reads, one at a time.
    Background,
    /// A segment that a client reads.
    Read,
    /// The segment of one large upload.
    Upload,
    /// The log of an upload. Logs leave room for the segments of all uploads that may write.
    UploadLog,
}

/// The number of open files, and its bound.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    uploads: usize,
    logs: usize,
}

/// One open file, counted until this drops.
#[derive(Debug)]
pub(crate) struct OpenFile {
    files: Arc<OpenFiles>,
    purpose: Purpose,
}

/// Why a file may not be opened now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many are open as may be.
    All,
    /// Reads have used up their share.
    Pulls,
    /// Uploads have used up their share.
    Uploads,
}

/// A counted file that may be opened, or why it may not.
pub(super) type Admitted = Result<OpenFile, Full>;

impl OpenFiles {
    /// Creates a count with nothing open and the bound `max`.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            counts: Mutex::default(),
        })
    }

    /// Returns the most files that are kept open only for the next reader.
    pub(crate) fn kept_max(&self) -> usize {
        self.max / 2
    }

    /// Counts a file that is about to be opened.
    pub(crate) fn admit(self: &Arc<Self>, purpose: Purpose) -> Admitted {
        let mut counts = self.counts.lock();
        let log = purpose == Purpose::UploadLog;
        let upload = log || purpose == Purpose::Upload;
        let bounded = !matches!(purpose, Purpose::Commit | Purpose::Background);
        if bounded && counts.all >= self.max {
            return Err(Full::All);
        }
        // Files that commits wrote are kept for reads.
        if purpose == Purpose::Read && counts.all - counts.uploads >= self.share() {
            return Err(Full::Pulls);
        }
        let full_of_logs = log && counts.logs >= self.logs_max();
        if full_of_logs || (upload && counts.uploads >= self.share()) {
            return Err(Full::Uploads);
        }
        counts.all += 1;
        counts.uploads += usize::from(upload);
        counts.logs += usize::from(log);
        drop(counts);
        let files = Arc::clone(self);
        Ok(OpenFile { files, purpose })
    }

    /// Returns the most segments that uploads may have open.
    pub(crate) fn writers_max(&self) -> usize {
        (self.max / 2).max(1)
    }

    /// Returns the share of reads, and that of uploads.
    fn share(&self) -> usize {
        self.max - self.max / 4
    }

    fn logs_max(&self) -> usize {
        (self.share() - self.writers_max()).max(1)
    }

    /// Makes the error of an operation that needed a file which may not be opened.
    pub(crate) fn refusal(&self, full: Full) -> IoError {
        let by = match full {
            Full::All => "",
            Full::Pulls => " by pulls",
            Full::Uploads => " by unfinished uploads",
        };
        let what = format!(
            "too many files of blobs are open{by}; the limit is {} (storage.open_files)",
            self.max
        );
        IoError::NotAttempted(io::Error::other(what))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut counts = self.files.counts.lock();
        counts.all -= 1;
        let log = self.purpose == Purpose::UploadLog;
        counts.logs -= usize::from(log);
        counts.uploads -= usize::from(log || self.purpose == Purpose::Upload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: uploads leave a quarter to reads and reads a quarter to uploads. All together keep the bound, commits
    /// are never rejected, and what is closed can be used again.
    #[test]
    fn reads_and_uploads_leave_room_for_each_other() {
        for (greedy, other, full) in [
            (Purpose::Upload, Purpose::Read, Full::Uploads),
            (Purpose::Read, Purpose::Upload, Full::Pulls),
        ] {
            let files = OpenFiles::new(8);
            let mut held: Vec<_> = (0..6).map(|_| files.admit(greedy).unwrap()).collect();
            assert_eq!(files.admit(greedy).unwrap_err(), full);
            held.extend((0..2).map(|_| files.admit(other).unwrap()));
            assert_eq!(files.admit(other).unwrap_err(), Full::All);
            drop(files.admit(Purpose::Commit).unwrap());
            held.remove(0);
            files.admit(greedy).unwrap();
        }
    }
}
