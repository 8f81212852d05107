//! Uploads that survived a restart.
//!
//! Owns: reading the logs at open. Refuses: anything while the store runs.
//!
//! Invariants: a segment that a transaction names is never touched, whatever a log says. An upload that cannot be
//! resumed is forgotten, and its log removed.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::body::Body;
use super::log::LogFile;
use super::sessions::Uploads;
use super::shared::UploadIdentity;
use super::spill::Spill;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::format::upload_log::{UploadLog, replay};
use crate::io::exact::read_up_to;
use crate::io::{Class, Env, FileRef, OpenMode};
use crate::vocabulary::UploadId;

/// Larger logs belong to no upload that can be held: with 4 bytes a chunk this is 4 TiB and more.
const LOG_BYTES_MAX: u64 = 256 << 20;

impl Uploads {
    /// Resumes the uploads whose logs are intact, and returns their segments, which recovery must keep.
    ///
    /// `committed` says whether a transaction names a segment. A log that outlived its upload's commit is only removed.
    pub(crate) async fn resume(
        &self,
        committed: &(dyn Fn(SegmentId) -> bool + Send + Sync),
    ) -> Result<HashSet<SegmentId>> {
        let shared = self.shared();
        let names = log_names(&shared.env, shared.dir.path()).await?;
        let mut kept = HashSet::new();
        for (_, id) in names {
            let open = shared.segments.files().open_files();
            let log = LogFile::new(shared.env.clone(), &shared.dir, open, id);
            let path = log.path().to_path_buf();
            match self.resume_one(id, log, committed).await {
                Ok(Some(segment)) => {
                    kept.insert(segment);
                }
                Ok(None) => self.remove_log(&path).await,
                // It says nothing about the upload, so the open fails and can be repeated.
                Err(error) if error.is_not_attempted() => return Err(error),
                Err(error) => {
                    tracing::warn!(upload = %id, %error, "an upload cannot be resumed; its client must start again");
                    self.remove_log(&path).await;
                }
            }
        }
        Ok(kept)
    }

    async fn resume_one(
        &self,
        id: UploadId,
        log: LogFile,
        committed: &(dyn Fn(SegmentId) -> bool + Send + Sync),
    ) -> Result<Option<SegmentId>> {
        let shared = self.shared();
        let (file, bytes) = self.read_log(log.path()).await?;
        let Some(UploadLog { header, last, end }) = replay(&bytes) else {
            return Ok(None);
        };
        let ours =
            header.store == shared.segments.files().store() && header.upload == *id.as_bytes();
        if !ours || committed(header.segment) {
            return Ok(None);
        }
        let mut writer = shared
            .segments
            .resume_dedicated(header.segment, last.mark.length)
            .await?;
        let log = match log.resume(&file, end).await {
            // The next open finds the upload as it was.
            Err(error) if error.is_not_attempted() => {
                writer.keep_unfinished();
                return Err(error);
            }
            resumed => resumed?,
        };
        writer.close();
        let identity = UploadIdentity {
            id,
            repository: header.repository.clone(),
            actor: header.actor.clone(),
            created_unix_ms: header.created_unix_ms,
        };
        let segment = header.segment;
        let spill = Spill::new(Arc::clone(shared), writer, header, log);
        let body = Body::resume(Arc::clone(shared), identity.clone(), last, spill);
        self.add(identity, body, false);
        Ok(Some(segment))
    }

    async fn read_log(&self, path: &Path) -> Result<(FileRef, Vec<u8>)> {
        read_log(&self.shared().env, path, OpenMode::Write).await
    }

    async fn remove_log(&self, path: &Path) {
        if let Err(error) = self
            .shared()
            .env
            .io
            .unlink(Class::Directory.call(), path)
            .await
        {
            tracing::warn!(path = %path.display(), %error, "an upload log could not be removed");
        }
    }
}

/// An upload log on the disk.
#[derive(Debug)]
pub(crate) struct FoundLog {
    /// Its path.
    pub path: PathBuf,
    /// Its content, or why it cannot be read.
    pub read: Result<ReadLog>,
}

/// The content of an upload log.
#[derive(Debug)]
pub(crate) struct ReadLog {
    /// `None` if nothing in it is intact, or it belongs to another upload than its name says.
    pub log: Option<UploadLog>,
    /// Its size in bytes.
    pub length: u64,
}

/// Reads every upload log in `dir` without changing anything, for `fsck`. A missing directory holds none.
pub(crate) async fn logs(env: &Env, dir: &Path) -> Result<Vec<FoundLog>> {
    let mut found = Vec::new();
    for (name, id) in log_names(env, dir).await? {
        let path = dir.join(name);
        let read = read_log(env, &path, OpenMode::Read).await;
        let read = read.map(|(_, bytes)| ReadLog {
            log: replay(&bytes).filter(|log| log.header.upload == *id.as_bytes()),
            length: bytes.len() as u64,
        });
        found.push(FoundLog { path, read });
    }
    Ok(found)
}

/// Lists the upload logs in `dir` that are regular files. A missing directory holds none.
async fn log_names(env: &Env, dir: &Path) -> Result<Vec<(String, UploadId)>> {
    let files = match env.io.list_files(Class::Directory.call(), dir).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        files => files.map_err(|error| Error::io("list directory", dir, error))?,
    };
    let log = |(name, _): (String, u64)| LogFile::parse_name(&name).map(|id| (name, id));
    Ok(files.into_iter().filter_map(log).collect())
}

/// Returns the segments of uploads that the next open can resume, without changing anything.
pub(crate) async fn resumable_segments(env: &Env, dir: &Path) -> Result<BTreeSet<SegmentId>> {
    let mut segments = BTreeSet::new();
    for found in logs(env, dir).await? {
        segments.extend(found.read?.log.map(|log| log.header.segment));
    }
    Ok(segments)
}

async fn read_log(env: &Env, path: &Path, mode: OpenMode) -> Result<(FileRef, Vec<u8>)> {
    let failed = |error| Error::io("read upload log", path, error);
    let file = env
        .io
        .open(Class::UploadWrite.call(), path, mode)
        .await
        .map_err(failed)?;
    let length = file.len(Class::UploadWrite.call()).await.map_err(failed)?;
    if length > LOG_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "upload log",
            length,
            max: LOG_BYTES_MAX,
        });
    }
    let room = usize::try_from(length).unwrap_or(usize::MAX);
    let read = read_up_to(
        file.as_ref(),
        Class::UploadWrite.call(),
        0,
        Buffer::unpooled(room),
    )
    .await
    .map_err(failed)?;
    Ok((file, read.filled().to_vec()))
}
