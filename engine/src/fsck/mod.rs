//! Checks a closed store: reads everything, reports, repairs nothing.
//!
//! Owns: what is checked and how a finding is graded. Refuses: trusting anything it reads, and writing.
//!
//! Checked are: the superblock's copies; every frame of the journal from its beginning; that the newest checkpoint
//! leads to the same rows as the whole journal; that rows and their reverses agree; that rows of deleted manifests are
//! marked; the usage of repositories; every record that the index names, chunk by chunk; with `deep`, every digest;
//! what unfinished uploads would continue from; files that nothing names. An unreadable file is a finding, and the
//! check continues.

mod blobs;
mod files;
mod journal;
mod retired;
mod rows;
mod uploads;
mod usage;

use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use crate::error::{Error, Result};
use crate::extent::Lsn;
use crate::io::Env;
use crate::recovery::lock::DirectoryLock;
use crate::recovery::superblock::{self as superblocks, SUPERBLOCK};
use crate::table::TableContext;

/// What to check beyond the checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsckOptions {
    /// Compute the digest of every blob too, not only its checksums.
    pub deep: bool,
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Acknowledged content is lost or unreadable, or the catalog contradicts itself.
    Damage,
    /// A cache is unusable; the next open rebuilds it from the journal.
    Cache,
    /// Nothing uses it. The next open removes what a crash left; for anything else the finding says what to do.
    Leftover,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Severity of the finding.
    pub severity: Severity,
    /// The file, or the store's directory if no single file is at fault.
    pub path: PathBuf,
    /// What was found, in words.
    pub what: String,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckReport {
    /// All findings.
    pub findings: Vec<Finding>,
    /// Last transaction of the journal.
    pub lsn: Lsn,
    /// Whether the store was closed cleanly.
    pub clean: bool,
    /// Transactions in the journal.
    pub transactions: u64,
    /// Blobs checked.
    pub blobs: u64,
    /// Payload bytes checked.
    pub blob_bytes: u64,
    /// Repositories.
    pub repositories: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Uploads that can be continued.
    pub uploads: u64,
}

impl FsckReport {
    /// Whether no acknowledged content is lost and nothing contradicts itself.
    pub fn is_sound(&self) -> bool {
        !self
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Damage)
    }

    fn add(&mut self, severity: Severity, path: &Path, what: impl Into<String>) {
        self.findings.push(Finding {
            severity,
            path: path.to_path_buf(),
            what: what.into(),
        });
    }

    /// Reports a failed read as damage, because unreadable content cannot be served. A read that was not attempted ends
    /// the check.
    fn add_error(&mut self, path: &Path, error: Error) -> Result<()> {
        if error.is_not_attempted() {
            return Err(error);
        }
        if let Error::Corrupt(corruption) = error {
            let what = format!("byte {}: {}", corruption.offset, corruption.what);
            self.add(Severity::Damage, &corruption.path, what);
        } else {
            self.add(Severity::Damage, path, error.to_string());
        }
        Ok(())
    }
}

/// Checks the store in `path`, which no process may hold. Calls `progress` with the payload bytes checked so far and in
/// total.
///
/// # Errors
/// There is nothing to check (no store, held by a process, or of a newer format), or the check could not continue.
pub fn check<'a>(
    env: &'a Env,
    path: &'a Path,
    options: FsckOptions,
    progress: &'a (dyn Fn(u64, u64) + Send + Sync),
) -> BoxFuture<'a, Result<FsckReport>> {
    Box::pin(check_locked(env, path, options, progress))
}

async fn check_locked(
    env: &Env,
    path: &Path,
    options: FsckOptions,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<FsckReport> {
    if superblocks::classify(&*env.io, path).await? != superblocks::Kind::Store {
        let why = "it has no superblock".to_owned();
        return Err(Error::Foreign {
            path: path.to_path_buf(),
            why,
        });
    }
    let directory = DirectoryLock::take(&*env.io, path).await?;
    let mut report = FsckReport::default();
    let Some((superblock, damaged_copies)) = superblocks::read(&*env.io, path).await? else {
        report.add(
            Severity::Leftover,
            path,
            "its creation was cut short; the next open creates it again",
        );
        return Ok(report);
    };
    for copy in damaged_copies {
        let what = format!(
            "copy {copy} of 4 is damaged or of another store; the next open writes it again from the others"
        );
        report.add(Severity::Damage, &path.join(SUPERBLOCK), what);
    }
    let _lock = directory.with_superblock(&*env.io, path).await?;
    let context = TableContext::new(env.clone(), path, &superblock);
    let Some((view, walked)) = journal::check(&context, &superblock, &mut report).await? else {
        return Ok(report);
    };
    rows::check(&view, path, &mut report).await?;
    retired::check(&view, path, &mut report).await?;
    usage::check(&view, path, &mut report).await?;
    files::check(&context, &view, &walked, &mut report).await?;
    blobs::check(&context, &view, options, progress, &mut report).await?;
    Ok(report)
}
