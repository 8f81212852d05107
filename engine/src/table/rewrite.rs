//! Writes a frozen delta into new base files.
//!
//! Owns: the mechanism; `plan` says what is rewritten. Refuses: touching a file that is there: old files stay until the caller
//! has made the new ones known.
//!
//! Memory, beside page directories and fingerprints of the new files: one write of [`WRITE_BYTES`] and a page, the old page that is
//! read, and the page that is filled; whatever the size of a partition.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::builder::{Builder, Finished};
use super::partition::{Partition, file_name};
use super::plan::{Group, Standing, plan};
use super::scan::{Scan, as_slices};
use super::{Base, Delta, PageSizes, Site};
use crate::error::{Error, Result};
use crate::format::base::FILE_HEADER_BYTES;
use crate::format::checkpoint::PartitionRef;
use crate::io::{Class, Env, FileRef, OpenMode, exact};

/// What files of rows are written as.
const CLASS: Class = Class::Background;

/// Bytes of pages built in one job and written in one go: about a millisecond of computing.
const WRITE_BYTES: usize = 256 << 10;

/// What a rewrite made. The new files are unlinked if this is dropped before [`Rewritten::keep`].
#[derive(Debug)]
pub struct Rewritten {
    /// The base with the frozen rows in it.
    pub base: Arc<Base>,
    /// Bytes of new files.
    pub bytes_written: u64,
    /// Number of new files.
    pub files_written: usize,
    /// Files of the old base that the new one does not use.
    pub unused: Vec<u64>,
    new_files: NewFiles,
}

impl Rewritten {
    /// The new files as a checkpoint names them, with those that stayed.
    pub fn partitions(&self) -> Vec<PartitionRef> {
        self.base.references()
    }

    /// A checkpoint names the new files: they stay.
    pub fn keep(mut self) -> Arc<Base> {
        self.new_files.ids.clear();
        Arc::clone(&self.base)
    }
}

/// Unlinks the files of a rewrite that failed or was dropped, as far as it can: what is left is unlinked by a later checkpoint.
#[derive(Debug)]
struct NewFiles {
    env: Env,
    dir: PathBuf,
    ids: Vec<u64>,
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let (env, dir, ids) = (
            self.env.clone(),
            self.dir.clone(),
            std::mem::take(&mut self.ids),
        );
        let unlink = async move {
            for id in ids {
                if let Err(error) = env
                    .io
                    .unlink(Class::Directory.call(), &dir.join(file_name(id)))
                    .await
                {
                    tracing::debug!(file = file_name(id), %error, "left a base file that nothing names");
                }
            }
        };
        self.env.spawn.spawn("unlink base files", Box::pin(unlink));
    }
}

/// Writes the rows of `frozen` over those of `base`. Files and directory are synced when this returns. On an error or if
/// dropped, `base` and its files are as before.
pub async fn rewrite(site: &Site, base: &Arc<Base>, frozen: &Delta) -> Result<Rewritten> {
    let groups = plan_off_worker(site, base, frozen).await?;
    let mut new_files = NewFiles {
        env: site.env.clone(),
        dir: site.base_dir(),
        ids: Vec::new(),
    };
    let mut partitions = Vec::new();
    let (mut unused, mut written) = (Vec::new(), Vec::new());
    let mut standing = base.partitions().iter();
    let mut at = 0;
    for group in groups {
        // What stands before the group stays as it is.
        partitions.extend(
            standing
                .by_ref()
                .take(group.partitions.start - at)
                .map(Arc::clone),
        );
        let gone = standing.by_ref().take(group.partitions.len());
        unused.extend(gone.map(|partition| partition.reference().id));
        at = group.partitions.end;
        let filler = Filler::new(site, base, frozen, &group);
        for partition in write_group(site, filler, &mut new_files).await? {
            written.push(partition.bytes());
            partitions.push(Arc::new(partition));
        }
    }
    partitions.extend(standing.map(Arc::clone));
    if !written.is_empty() {
        let dir = site.base_dir();
        let synced = exact::sync_dir(&*site.env.io, Class::Directory.call(), &dir).await;
        synced.map_err(|error| site.poison.of_directory_sync(&dir, error))?;
    }
    Ok(Rewritten {
        base: Base::of(partitions),
        bytes_written: written.iter().sum(),
        files_written: written.len(),
        unused,
        new_files,
    })
}

async fn plan_off_worker(site: &Site, base: &Arc<Base>, frozen: &Delta) -> Result<Vec<Group>> {
    let (base, frozen, sizes) = (Arc::clone(base), frozen.clone(), site.files);
    let job = move || {
        let standing = base.partitions().iter().map(|partition| Standing {
            first_key: partition.first_key().clone(),
            bytes: partition.bytes(),
        });
        plan(&standing.collect::<Vec<_>>(), &frozen, sizes)
    };
    site.env.compute(job).await.ok_or(Error::Closed)
}

async fn write_group(
    site: &Site,
    filler: Filler,
    new_files: &mut NewFiles,
) -> Result<Vec<Partition>> {
    let mut filler = filler;
    let mut partitions = Vec::new();
    loop {
        let id = site.claim_file();
        let (back, finished) = write_file(site, filler, id, new_files).await?;
        filler = back;
        let Some(reference) = finished else {
            return Ok(partitions);
        };
        // Read back and checked before anything names it.
        let opened = Partition::open(&site.env, &site.base_dir(), site.store_id, &reference).await;
        partitions.push(opened.map_err(|unusable| {
            Error::corrupt(&unusable.path, 0, format!("just written, {}", unusable.why))
        })?);
    }
}

/// Writes one file, or nothing if there are no more rows.
async fn write_file(
    site: &Site,
    filler: Filler,
    id: u64,
    new_files: &mut NewFiles,
) -> Result<(Filler, Option<PartitionRef>)> {
    let path = site.base_dir().join(file_name(id));
    let failed = |op: &'static str| move |error| (op, error);
    let mut filler = filler;
    let mut offset = FILE_HEADER_BYTES as u64;
    let mut file: Option<FileRef> = None;
    loop {
        let output = filler.fill_off_worker(&site.env, id).await?;
        filler = output.0;
        let Some(output) = output.1 else {
            assert!(
                file.is_none(),
                "a base file was begun without a row to end it"
            );
            return Ok((filler, None));
        };
        let done = async {
            let open = if let Some(open) = file.take() {
                open
            } else {
                new_files.ids.push(id);
                let io = &site.env.io;
                let opened = io.open(CLASS.call(), &path, OpenMode::CreateNew).await;
                opened.map_err(failed("creating"))?
            };
            let to = open.as_ref();
            match output {
                Output::Pages(pages) => {
                    let length = pages.len() as u64;
                    let written = exact::write_all(to, CLASS.call(), offset, vec![pages]).await;
                    written.map_err(failed("writing"))?;
                    // A hint: the sync at the end waits for less. Its failure shows there.
                    drop(to.start_writeback(CLASS.call(), offset, length).await);
                    offset += length;
                    file = Some(open);
                    Ok(None)
                }
                Output::End(end) => {
                    let written = exact::write_all(to, CLASS.call(), offset, vec![end.tail]).await;
                    written.map_err(failed("writing"))?;
                    let written = exact::write_all(to, CLASS.call(), 0, vec![end.header]).await;
                    written.map_err(failed("writing"))?;
                    let synced = to.sync_data(CLASS.call()).await;
                    synced.map_err(failed("syncing"))?;
                    Ok(Some(end.reference))
                }
            }
        };
        match done.await {
            Ok(None) => {}
            Ok(Some(reference)) => return Ok((filler, Some(reference))),
            Err((op, error)) => return Err(Error::io(op, &path, error)),
        }
    }
}

/// Turns the rows of a group into the bytes of files, some at a time.
#[derive(Debug)]
struct Filler {
    rows: Scan,
    // The first row of the next file.
    held: Option<(Bytes, Bytes)>,
    builder: Option<Builder>,
    store_id: [u8; 16],
    pages: PageSizes,
    cut_bytes: u64,
}

enum Output {
    /// Pages to write behind what was written.
    Pages(Bytes),
    /// The end of a file.
    End(Finished),
}

impl Filler {
    fn new(site: &Site, base: &Arc<Base>, frozen: &Delta, group: &Group) -> Self {
        let (from, to) = as_slices(&group.bounds);
        Self {
            rows: Scan::new(std::iter::once(frozen.clone()), base, from, to),
            held: None,
            builder: None,
            store_id: site.store_id,
            pages: site.pages,
            cut_bytes: group.cut_bytes,
        }
    }

    async fn fill_off_worker(self, env: &Env, id: u64) -> Result<(Self, Option<Output>)> {
        let mut filler = self;
        let job = move || filler.fill(id).map(|output| (filler, output));
        env.compute(job).await.ok_or(Error::Closed)?
    }

    /// The next output for file `id`; `None` if there are no rows for it.
    fn fill(&mut self, id: u64) -> Result<Option<Output>> {
        loop {
            let row = match self.held.take() {
                Some(row) => Some(row),
                None => self.rows.next().transpose()?,
            };
            let full = |builder: &Builder| builder.file_bytes() >= self.cut_bytes;
            if row.is_none() || self.builder.as_ref().is_some_and(full) {
                self.held = row;
                return Ok(self
                    .builder
                    .take()
                    .map(|builder| Output::End(builder.finish())));
            }
            let (store_id, pages) = (self.store_id, self.pages);
            let builder = self
                .builder
                .get_or_insert_with(|| Builder::new(store_id, id, pages));
            if let Some((key, value)) = row {
                builder.push(key, value);
            }
            if builder.finished_bytes() >= WRITE_BYTES {
                return Ok(Some(Output::Pages(builder.take_finished())));
            }
        }
    }
}
