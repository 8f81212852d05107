//! The file of an upload log.
//!
//! Owns: creating it with its first checkpoint, appending, removing. Refuses: the bytes (`format::upload_log`).
//!
//! Invariants: a log that failed once is not appended to again, so nothing follows a torn checkpoint. Between two
//! appends it has no descriptor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::upload_log::{HEADER_BYTES, UploadCheckpoint, UploadHeader};
use crate::io::exact::write_all_and_sync;
use crate::io::{Class, Directory, Env, FileRef, IoError, OpenMode};
use crate::segment::{OpenFile, OpenFiles, Purpose};
use crate::vocabulary::{ClientId, UploadId};

const SUFFIX: &str = ".upload";

/// The log of one upload; its file exists once it was appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    env: Env,
    dir: Directory,
    path: PathBuf,
    upload: UploadId,
    open: Arc<OpenFiles>,
    /// Whether the file exists, or may exist.
    exists: bool,
    /// Whether its name is durable.
    named: bool,
    /// Where the next checkpoint goes; 0 while there is no header.
    end: u64,
    failed: bool,
    /// The client whose request it serves.
    client: ClientId,
}

impl LogFile {
    /// Creates a log whose file does not exist yet; the file will be counted in `open`.
    pub(super) fn new(env: Env, dir: &Directory, open: &Arc<OpenFiles>, upload: UploadId) -> Self {
        let path = dir.path().join(format!("{upload}{SUFFIX}"));
        Self {
            env,
            dir: dir.clone(),
            path,
            upload,
            open: Arc::clone(open),
            exists: false,
            named: false,
            end: 0,
            failed: false,
            client: ClientId::ENGINE,
        }
    }

    /// Returns the upload of a log's file name.
    pub(super) fn parse_name(name: &str) -> Option<UploadId> {
        name.strip_suffix(SUFFIX)?.parse().ok()
    }

    /// Continues at `end` of a log that was read from `file`; cuts off what follows.
    pub(super) async fn resume(mut self, file: &FileRef, end: u64) -> Result<Self> {
        file.set_len(Class::UploadWrite.call(), end)
            .await
            .map_err(|error| self.error("cut upload log", error))?;
        (self.exists, self.named, self.end) = (true, true, end);
        Ok(self)
    }

    /// Counts what follows as work of `client`, which takes turns with others.
    pub(super) fn set_client(&mut self, client: ClientId) {
        self.client = client;
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether checkpoints can be appended.
    pub(super) fn usable(&self) -> bool {
        !self.failed
    }

    /// Appends a checkpoint durably. After a failure the upload does not survive a restart, but continues; remove the
    /// log. An append that was not attempted may be repeated.
    pub(super) async fn append(
        &mut self,
        header: &UploadHeader,
        checkpoint: &UploadCheckpoint,
    ) -> Result<()> {
        if self.failed {
            return Err(Error::Closed);
        }
        // Also set if this future is dropped half-way.
        self.failed = true;
        let done = self.try_append(header, checkpoint).await;
        self.failed = done.as_ref().is_err_and(|error| !error.is_not_attempted());
        done
    }

    async fn try_append(
        &mut self,
        header: &UploadHeader,
        checkpoint: &UploadCheckpoint,
    ) -> Result<()> {
        let (file, counted) = self.open().await?;
        let mut slices = Vec::new();
        if self.end == 0 {
            slices.push(header.encode().into());
        }
        let (at, start) = (self.end, self.end.max(HEADER_BYTES as u64));
        let record = Bytes::from(checkpoint.encode(self.upload.as_bytes(), start));
        let end = start + record.len() as u64;
        slices.push(record);
        let written = write_all_and_sync(
            &*file,
            Class::UploadWrite.call().for_client(self.client),
            at,
            slices,
        )
        .await;
        written.map_err(|error| self.error("write upload log", error))?;
        if !self.named {
            let synced = self
                .dir
                .sync(Class::UploadWrite.call().for_client(self.client))
                .await;
            synced.map_err(|error| Error::io("sync directory", self.dir.path(), error))?;
            self.named = true;
        }
        self.end = end;
        drop((file, counted));
        Ok(())
    }

    async fn open(&mut self) -> Result<(FileRef, OpenFile)> {
        let counted = self.open.admit(Purpose::UploadLog);
        let counted =
            counted.map_err(|full| self.error("open upload log", self.open.refusal(full)))?;
        let io = &self.env.io;
        if self.exists {
            let opened = io.open(
                Class::UploadWrite.call().for_client(self.client),
                &self.path,
                OpenMode::Write,
            );
            let file = opened.await;
            let file = file.map_err(|error| self.error("open upload log", error))?;
            return Ok((file, counted));
        }
        let created = io.open(
            Class::UploadWrite.call().for_client(self.client),
            &self.path,
            OpenMode::CreateNew,
        );
        let file = created
            .await
            .map_err(|error| self.error("create upload log", error))?;
        self.exists = true;
        Ok((file, counted))
    }

    fn error(&self, op: &'static str, error: IoError) -> Error {
        Error::io(op, &self.path, error)
    }

    /// Removes the file, if there is one, durably: no open finds what it named. A failure ends the upload, whatever its
    /// cause, because the bytes that the log names must not be written again.
    pub(super) async fn remove_durably(&mut self) -> Result<()> {
        self.failed = true;
        if !self.exists {
            return Ok(());
        }
        let io = &self.env.io;
        let unlinked = io
            .unlink(
                Class::UploadWrite.call().for_client(self.client),
                &self.path,
            )
            .await;
        let ended = |op, error| Error::final_io(op, &self.path, error);
        unlinked.map_err(|error| ended("remove upload log", error))?;
        let synced = self
            .dir
            .sync(Class::UploadWrite.call().for_client(self.client))
            .await;
        synced.map_err(|error| ended("sync directory of upload log", error))?;
        self.exists = false;
        Ok(())
    }

    /// Removes the file, if there is one, in the background. Open removes what a crash leaves.
    pub(super) fn remove(&mut self) {
        if std::mem::take(&mut self.exists) {
            let (io, path) = (Arc::clone(&self.env.io), self.path.clone());
            let task = async move {
                if let Err(error) = io.unlink(Class::Directory.call(), &path).await {
                    tracing::warn!(path = %path.display(), %error, "an upload log could not be removed");
                }
            };
            self.env.spawn.spawn("remove upload log", Box::pin(task));
        }
        self.failed = true;
    }
}
