//! The upload log's file.
//!
//! Owns: creating it with its first checkpoint, appending, removing. Refuses: the bytes (`format::upload_log`).
//!
//! Invariant: a log that once failed is not appended to again, so that nothing stands behind a torn checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::UploadId;
use crate::error::{Error, Result};
use crate::format::upload_log::{HEADER_BYTES, UploadCheckpoint, UploadHeader};
use crate::io::exact::write_all_and_sync;
use crate::io::{Class, Directory, Env, FileRef, IoError, OpenMode};
use crate::segment::{OpenFile, OpenFiles, Purpose};

const SUFFIX: &str = ".upload";

/// The log of one upload; its file exists once it was appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    env: Env,
    dir: Directory,
    path: PathBuf,
    upload: UploadId,
    open: Arc<OpenFiles>,
    counted: Option<OpenFile>,
    file: Option<FileRef>,
    end: u64,
    failed: bool,
}

impl LogFile {
    /// A log that does not exist yet; its file will be one of `open`.
    pub(super) fn new(env: Env, dir: &Directory, open: &Arc<OpenFiles>, upload: UploadId) -> Self {
        let path = dir.path().join(format!("{upload}{SUFFIX}"));
        Self {
            env,
            dir: dir.clone(),
            path,
            upload,
            open: Arc::clone(open),
            counted: None,
            file: None,
            end: 0,
            failed: false,
        }
    }

    /// The upload of a file name.
    pub(super) fn parse_name(name: &str) -> Option<UploadId> {
        name.strip_suffix(SUFFIX)?.parse().ok()
    }

    /// Goes on behind `end` of a log that was read; what stands there is cut off.
    pub(super) async fn resume(mut self, file: FileRef, end: u64) -> Result<Self> {
        self.count()?;
        file.set_len(Class::UploadWrite.call(), end)
            .await
            .map_err(|error| self.error("cut upload log", error))?;
        (self.file, self.end) = (Some(file), end);
        Ok(self)
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether checkpoints can be appended.
    pub(super) fn usable(&self) -> bool {
        !self.failed
    }

    /// Appends a checkpoint durably. A failure costs the upload its way over a restart, nothing else.
    pub(super) async fn append(
        &mut self,
        header: &UploadHeader,
        checkpoint: &UploadCheckpoint,
    ) -> Result<()> {
        if self.failed {
            return Err(Error::Closed);
        }
        // Also if this future is dropped half-way.
        self.failed = true;
        let done = self.try_append(header, checkpoint).await;
        match &done {
            Ok(()) => self.failed = false,
            Err(_) => self.remove(),
        }
        done
    }

    async fn try_append(
        &mut self,
        header: &UploadHeader,
        checkpoint: &UploadCheckpoint,
    ) -> Result<()> {
        let created = self.file.is_none();
        let (file, mut slices) = match &self.file {
            Some(file) => (Arc::clone(file), Vec::new()),
            None => (self.create().await?, vec![header.encode().into()]),
        };
        let at = if created { 0 } else { self.end };
        let start = self.end.max(HEADER_BYTES as u64);
        let record = Bytes::from(checkpoint.encode(self.upload.as_bytes(), start));
        let end = start + record.len() as u64;
        slices.push(record);
        let written = write_all_and_sync(&*file, Class::UploadWrite.call(), at, slices).await;
        written.map_err(|error| self.error("write upload log", error))?;
        if created {
            let synced = self.dir.sync(Class::UploadWrite.call()).await;
            synced.map_err(|error| Error::io("sync directory", self.dir.path(), error))?;
        }
        self.end = end;
        Ok(())
    }

    async fn create(&mut self) -> Result<FileRef> {
        self.count()?;
        let io = &self.env.io;
        let opened = io.open(Class::UploadWrite.call(), &self.path, OpenMode::CreateNew);
        let file = opened.await;
        let file = file.map_err(|error| self.error("create upload log", error))?;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Counts its file in.
    fn count(&mut self) -> Result<()> {
        let counted = self.open.admit(Purpose::Upload);
        let counted =
            counted.map_err(|full| self.error("open upload log", self.open.refusal(full)))?;
        self.counted = Some(counted);
        Ok(())
    }

    fn error(&self, op: &'static str, error: IoError) -> Error {
        Error::io(op, &self.path, error)
    }

    /// Removes the file, if there is one, in the background. What is left after a crash is removed at open.
    pub(super) fn remove(&mut self) {
        if self.file.take().is_some() {
            let (io, path) = (Arc::clone(&self.env.io), self.path.clone());
            let task = async move {
                if let Err(error) = io.unlink(Class::Directory.call(), &path).await {
                    tracing::warn!(path = %path.display(), %error, "an upload log could not be removed");
                }
            };
            self.env.spawn.spawn("remove upload log", Box::pin(task));
        }
        self.counted = None;
        self.failed = true;
    }
}
