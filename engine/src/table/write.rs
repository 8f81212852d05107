//! Writes rows into a new run file.
//!
//! Owns: the mechanism, for a checkpoint and for a merge. Refuses: changing an existing file; old files stay until the
//! caller published the new one.
//!
//! Memory, beside directory and filter of the new file: one write of [`WRITE_BYTES`], and a window of each run that is
//! read.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::builder::{Builder, FinishedFile};
use super::context::Claim;
use super::open::{self, RunCheck};
use super::run::{Run, file_name};
use super::scan::Scan;
use super::{Runs, TableContext};
use crate::error::{Error, Result};
use crate::format::checkpoint::RunRef;
use crate::format::run::FILE_HEADER_BYTES;
use crate::io::{Class, Env, FileRef, OpenMode, exact};

/// Class of the writes of run files.
const CLASS: Class = Class::Background;

/// Bytes of pages built in one job, about a millisecond of computing, and written at a time.
const WRITE_BYTES: usize = 256 << 10;

/// A new run that no checkpoint names yet. Its file is unlinked if this is dropped before [`NewRun::keep`].
#[derive(Debug)]
pub(super) struct NewRun {
    run: Arc<Run>,
    file: NewFile,
}

impl NewRun {
    /// Returns the reference by which a checkpoint names it.
    pub(crate) fn reference(&self) -> RunRef {
        self.run.reference()
    }

    /// Keeps the file, after a checkpoint names it.
    pub(super) fn keep(mut self) -> Arc<Run> {
        self.file.made = false;
        Arc::clone(&self.run)
    }

    pub(super) fn run(&self) -> &Arc<Run> {
        &self.run
    }
}

/// A file that no checkpoint names yet. While this lives no checkpoint removes the file. Dropped, it unlinks the file
/// on a best-effort basis; a later checkpoint unlinks what is left.
#[derive(Debug)]
struct NewFile {
    env: Env,
    path: PathBuf,
    claim: Arc<Claim>,
    /// Whether the file may exist.
    made: bool,
}

impl NewFile {
    fn claim(context: &TableContext) -> Self {
        let claim = Arc::new(context.claim_file());
        Self {
            env: context.env.clone(),
            path: context.runs_dir().join(file_name(claim.id())),
            claim,
            made: false,
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        // Claimed until the file is unlinked, so that its number is not used again meanwhile.
        let (env, path, claim) = (self.env.clone(), self.path.clone(), Arc::clone(&self.claim));
        let unlink = async move {
            let _claim = claim;
            let unlinked = env.io.unlink(Class::Directory.call(), &path).await;
            if let Err(error) = unlinked {
                tracing::debug!(path = %path.display(), %error, "could not unlink a run file that no checkpoint names");
            }
        };
        self.env.spawn.spawn("unlink run file", Box::pin(unlink));
    }
}

/// The rows of a run that is to be written.
#[derive(Debug)]
pub(super) struct Input {
    /// The rows, in order.
    pub(super) rows: Scan,
    /// Upper bound on the number of different filter keys.
    pub(super) filter_keys: u64,
    /// The runs that are older than all of its rows. A deletion is written only if one of them may have the row.
    pub(super) older: Runs,
}

/// Writes the rows of `input`; returns `None` if there are none. File and directory are synced on return.
pub(super) async fn write(context: &TableContext, input: Input) -> Result<Option<NewRun>> {
    let mut file = NewFile::claim(context);
    let mut writer = Writer::new(context, file.claim.id(), input);
    let mut output = Output::new(file.path.clone());
    loop {
        let (back, piece) = writer.fill_off_worker(&context.env).await?;
        writer = back;
        match piece {
            Piece::Nothing => return Ok(None),
            Piece::NeedsPages => writer.read_windows().await?,
            Piece::Bytes(bytes) => {
                file.made = true;
                output.append(context, bytes).await?;
            }
            Piece::End(end) => {
                file.made = true;
                let reference = output.finish(context, end).await?;
                // Read back and checked before anything names it.
                let run = open::open(context, &reference, RunCheck::BeforeUse)
                    .await
                    .map_err(|unusable| {
                        unusable.not_attempted().unwrap_or_else(|| {
                            let what = format!("just written, {}", unusable.why);
                            Error::corrupt(&unusable.path, 0, what)
                        })
                    })?;
                let dir = context.runs_dir();
                let synced = exact::sync_dir(&*context.env.io, Class::Directory.call(), &dir).await;
                synced.map_err(|error| context.poison.of_directory_sync(&dir, error))?;
                let run = Arc::new(run);
                return Ok(Some(NewRun { run, file }));
            }
        }
    }
}

/// The file as far as it is written.
struct Output {
    path: PathBuf,
    file: Option<FileRef>,
    offset: u64,
}

impl Output {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            offset: FILE_HEADER_BYTES as u64,
        }
    }

    /// Writes `bytes` after those written before. The first call creates the file.
    async fn append(&mut self, context: &TableContext, bytes: Bytes) -> Result<FileRef> {
        let path = &self.path;
        let failed = |op| move |error| Error::io(op, path, error);
        let file = if let Some(file) = &self.file {
            Arc::clone(file)
        } else {
            let io = &context.env.io;
            let made = io.open(CLASS.call(), &self.path, OpenMode::CreateNew).await;
            made.map_err(failed("create"))?
        };
        let length = bytes.len() as u64;
        let written = exact::write_all(&*file, CLASS.call(), self.offset, vec![bytes]).await;
        written.map_err(failed("write"))?;
        // Bounds what a sync of the journal may have to wait for: only what the device has not taken yet of this
        // piece.
        let written = file.write_back(CLASS.call(), self.offset, length).await;
        written.map_err(failed("write"))?;
        self.offset += length;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Writes directory and header, and makes the file durable.
    async fn finish(&mut self, context: &TableContext, end: FinishedFile) -> Result<RunRef> {
        let file = self.append(context, end.directory).await?;
        let path = &self.path;
        let failed = |op| move |error| Error::io(op, path, error);
        let written = exact::write_all(&*file, CLASS.call(), 0, vec![end.header]).await;
        written.map_err(failed("write"))?;
        let synced = file.sync_data(CLASS.call()).await;
        synced.map_err(failed("sync"))?;
        Ok(end.reference)
    }
}

/// Turns rows into the bytes of a file, some at a time.
#[derive(Debug)]
struct Writer {
    input: Input,
    builder: Option<Builder>,
    part: Part,
}

/// Which part of the file comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Rows,
    Filter,
    Directory,
}

enum Piece {
    /// The input has no row.
    Nothing,
    /// The next row is in a page that has to be read first.
    NeedsPages,
    /// Bytes to write after those before.
    Bytes(Bytes),
    /// The end of the file.
    End(FinishedFile),
}

impl Writer {
    fn new(context: &TableContext, id: u64, input: Input) -> Self {
        Self {
            builder: Some(Builder::new(context, id, input.filter_keys)),
            input,
            part: Part::Rows,
        }
    }

    /// Reads the windows of pages that the next row needs.
    async fn read_windows(&mut self) -> Result<()> {
        for cursor in self.input.rows.waiting() {
            cursor.read_window().await?;
        }
        Ok(())
    }

    async fn fill_off_worker(self, env: &Env) -> Result<(Self, Piece)> {
        let mut writer = self;
        let job = move || writer.fill().map(|piece| (writer, piece));
        env.compute(job).await.ok_or(Error::Closed)?
    }

    fn fill(&mut self) -> Result<Piece> {
        let Some(builder) = &mut self.builder else {
            unreachable!("a run file was continued after its end");
        };
        while self.part == Part::Rows && builder.finished_bytes() < WRITE_BYTES {
            match self.input.rows.next_row() {
                Ok(Some((key, None))) if !self.input.older.may_have(&key) => {}
                Ok(Some((key, value))) => builder.push(&key, value.as_deref()),
                Ok(None) if builder.is_empty() => return Ok(Piece::Nothing),
                Ok(None) => {
                    builder.finish_rows();
                    self.part = Part::Filter;
                }
                Err(Error::NotResident(_)) => return Ok(Piece::NeedsPages),
                Err(error) => return Err(error),
            }
        }
        while self.part == Part::Filter && builder.finished_bytes() < WRITE_BYTES {
            if !builder.finish_filter_piece() {
                self.part = Part::Directory;
            }
        }
        if builder.finished_bytes() > 0 {
            return Ok(Piece::Bytes(builder.take_finished()));
        }
        match self.builder.take() {
            Some(builder) => Ok(Piece::End(builder.finish())),
            None => unreachable!("a run file ended twice"),
        }
    }
}
