//! A store with one bit of each byte flipped, one at a time.
//!
//! Owns: [`Specimen`], a small store with every structure of FORMAT.md, closed or killed; and the check of each of its
//! bytes ([`Specimen::flip`]). No wrong bytes are served, no name is lost, what FORMAT.md calls covered is noticed, and
//! the damage reaches no farther than its section "Blast radius" says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonnage_engine::format::journal::HEADER_BYTES;
use tonnage_engine::format::mark::FRAMES_START;
use tonnage_engine::{Digest, Error, Options, ScrubRequest, Store, UploadClaim, UploadId};

use super::content::{self, Contents};
use super::damage::{last_frames, read};
use super::drive;
use super::found;
use super::generate;
use super::operation::{Call, How, Operation};
use super::record::{SentUpload, Shared};
use super::recover::{
    Found, Task, Violation, empty_disk, fsck_image, guarded, open_damaged, recover, store_path,
};
use crate::machine::{Fault, Image, Machine, Noise, OpKind};
use crate::whole_blobs::ByDigest as _;

const SEED: u64 = 1;
const CHUNK: u64 = 64 << 10;
/// Small contents under each algorithm, one of two chunks in a shared segment, and one with a dedicated segment.
const CONTENTS: [u32; 7] = [0, 1, 11, 6, 20, 68 + 1, 68 + 34 + 10];
/// The content that is marked as damaged.
const MARKED: u32 = 6;
/// The content of the upload that is left open, after its first checkpoint.
const LEFT: u32 = 24;

/// The outcome of a flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The store does not open.
    Refused,
    /// One blob, or one chunk of it, does not read.
    Unreadable,
    /// `fsck` names the file; readers notice nothing.
    Found,
    /// The upload to which it belongs continues from an earlier offset, or not at all.
    Upload,
    /// It is not noticed: FORMAT.md says that the byte is not covered.
    Uncovered,
}

/// A store whose bits are flipped.
#[derive(Debug)]
pub struct Specimen {
    /// Whether it was closed.
    pub closed: bool,
    /// Its bytes.
    pub image: Image,
    /// The expected content.
    pub task: Task,
    /// The content that was found.
    pub found: Found,
    /// The place of each payload: file, first byte, length.
    payloads: BTreeMap<Digest, (PathBuf, u64, u64)>,
    tail: Option<(PathBuf, u64)>,
    /// The offsets at which uploads continue.
    resumed: BTreeMap<UploadId, u64>,
}

impl Specimen {
    /// Creates a store that is `closed`, or whose power is cut at the end with everything answered synced.
    pub fn new(closed: bool) -> Self {
        let options = options();
        let machine = Machine::new(SEED, &empty_disk());
        let record = Shared::default();
        machine.executor.block_on(async {
            let opened = Store::open(machine.env.clone(), &store_path(), options.clone()).await;
            let (store, _) = opened.expect("a new store opens");
            let grace = options.collection_grace;
            let clients = [calls()];
            drive::run_clients(&store, &machine.env, &record, grace, &clients, &[]).await;
            mark_damaged(&machine, &store).await;
            if closed {
                store.close().await.expect("the store closes");
            }
        });
        let image = if closed {
            machine.executor.settle();
            machine.disk.live_image()
        } else {
            machine.disk.durable_image()
        };
        let uploads: BTreeMap<UploadId, SentUpload> = record.0.lock().uploads.clone();
        let task = task(uploads);
        let found = recover(&task, &image).expect("the store is sound");
        assert_eq!(found.uploads.len(), 1, "the upload that was left is there");
        let payloads = payloads(&image, &task.universe);
        let tail = if closed { None } else { last_frames(&image) };
        let mut specimen = Self {
            closed,
            image,
            task,
            found,
            payloads,
            tail,
            resumed: BTreeMap::new(),
        };
        specimen.resumed = specimen.offsets();
        specimen
    }

    /// Returns the offsets at which the uploads of the undamaged store continue.
    fn offsets(&self) -> BTreeMap<UploadId, u64> {
        let machine = Machine::new(SEED, &self.image);
        machine.executor.block_on(async {
            let options = self.task.options.clone();
            let opened = Store::open(machine.env.clone(), &store_path(), options).await;
            let (store, _) = opened.expect("the store opens");
            let status = |(id, sent): (&UploadId, &SentUpload)| {
                let status = store.upload_status(*id, &sent.repository)?;
                Some((*id, status.offset))
            };
            self.task.uploads.iter().filter_map(status).collect()
        })
    }

    /// Returns files and their sizes, except for those that are no part of the store or are empty.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let part = |(path, content): (&PathBuf, &crate::machine::Content)| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            (name != "reserve").then(|| (path.clone(), content.len()))
        };
        self.image.files.iter().filter_map(part).collect()
    }

    /// Flips one bit and checks the outcome.
    pub fn flip(&self, path: &Path, at: u64) -> Result<Outcome, Violation> {
        let mut image = self.image.clone();
        let content = image.files.get_mut(path).expect("the file is there");
        let mut byte = [0];
        content.read(at, &mut byte);
        content.write(at, &[byte[0] ^ 1 << (at % 8)]);
        let looked = guarded("panic on damage", || self.look(&image, path, at));
        looked.map_err(|violation| {
            let what = format!("byte {at} of {}: {}", path.display(), violation.what);
            Violation::new(violation.check, what)
        })
    }

    fn look(&self, image: &Image, path: &Path, at: u64) -> Result<Outcome, Violation> {
        let wrong = |what: String| Err(Violation::new("flips", what));
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        let noticed = match fsck_image(self.task.seed, image) {
            Ok(report) if self.closed && !report.clean => true,
            Ok(report) if self.chunk_at(path, at).is_some() => {
                let place = self
                    .chunk_at(path, at)
                    .map(|chunk| format!("byte {chunk}:"));
                let place = place.unwrap_or_default();
                let named = |what: &str| what.starts_with(&place);
                report.findings.iter().any(|finding| named(&finding.what))
            }
            Ok(report) => report.findings.iter().any(|finding| {
                // A run file is named by the finding that its checkpoint cannot be used.
                finding.path == path || finding.what.contains(&*name)
            }),
            Err(_) => true,
        };
        let machine = Machine::new(self.task.seed, image);
        let tail = self
            .tail
            .as_ref()
            .is_some_and(|(journal, from)| journal == path && at >= *from);
        machine.executor.block_on(async {
            let read_damaged = async |store: &Store| self.read_damaged(store).await;
            let store = match open_damaged(&machine, &self.task.options, read_damaged).await {
                Ok(store) => store,
                Err(error) if !may_refuse(path) => {
                    return wrong(format!("more than a cache or a blob is lost: {error}"));
                }
                Err(_) if noticed => return Ok(Outcome::Refused),
                Err(error) => return wrong(format!("fsck is silent, open says: {error}")),
            };
            let request = ScrubRequest {
                digests: at.is_multiple_of(2),
                list_max: 2,
                ..ScrubRequest::default()
            };
            let scrubbed = store.scrub(request).await;
            let (lost, model) = self.read_all(&store, path, at).await?;
            match &scrubbed {
                Ok(report) if report.damaged == u64::from(lost) => {}
                // Nothing of an empty blob is read for a client, but it has a frame.
                Ok(report) if !lost && report.listed == [content::digest(0)] => {}
                // What scrub needs of the rows may be in the page that is damaged.
                Err(_) if noticed && !is_segment(path) => {}
                scrubbed => return wrong(format!("a blob is lost: {lost}, scrub: {scrubbed:?}")),
            }
            let uploads = self.continue_upload(&store, path).await?;
            drop(store.close().await);
            if tail {
                // The last frame of a journal that was not closed may count as torn.
                return Ok(Outcome::Found);
            }
            if model != self.found.model {
                let was = &self.found.model;
                return wrong(format!("names changed:\n found {model:?}\n were  {was:?}"));
            }
            match (lost, uploads, noticed) {
                (true, _, false) => wrong("fsck does not see a damaged blob".to_owned()),
                (true, _, true) => Ok(Outcome::Unreadable),
                (false, false, _) => Ok(Outcome::Upload),
                (false, true, true) => Ok(Outcome::Found),
                (false, true, false) if self.is_covered(path, at) => {
                    wrong("a covered byte changed unnoticed".to_owned())
                }
                (false, true, false) => Ok(Outcome::Uncovered),
            }
        })
    }

    /// Returns where the chunk of a blob begins that contains this byte.
    fn chunk_at(&self, path: &Path, at: u64) -> Option<u64> {
        let mut payloads = self.payloads.values();
        let (_, first, _) = payloads
            .find(|(file, first, length)| file == path && (*first..first + length).contains(&at))?;
        Some(first + (at - first) / CHUNK * CHUNK)
    }

    /// Reads everything of a store with a damaged run. Some of it fails; what does not is right.
    async fn read_damaged(&self, store: &Store) {
        if let Ok(model) = found::snapshot(store).await {
            let (names, expected) = (model.repositories, &self.found.model.repositories);
            assert_eq!(&names, expected, "wrong names from a damaged run");
        }
        for digest in self.task.universe.keys() {
            let read = read(store, digest).await;
            read.expect("wrong bytes from a damaged run");
        }
    }

    /// Reads every blob. At most one may be lost: the one to which the byte belongs, and of a payload only the chunk.
    async fn read_all(
        &self,
        store: &Store,
        path: &Path,
        at: u64,
    ) -> Result<(bool, super::state::Model), Violation> {
        let wrong = |what: String| Violation::new("blast radius", what);
        let mut model = found::snapshot(store)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let mut lost = Vec::new();
        for digest in self.task.universe.keys() {
            match store.view().read(|view| view.blob(digest)).await {
                Ok(None) => continue,
                Ok(Some(_)) => drop(model.stored.insert(*digest)),
                Err(error) => return Err(wrong(error.to_string())),
            }
            if !read(store, digest).await? {
                lost.push(*digest);
            }
        }
        let [digest] = lost[..] else {
            return if lost.is_empty() {
                Ok((false, model))
            } else {
                Err(wrong(format!("one byte costs {} blobs", lost.len())))
            };
        };
        // An empty blob has only a frame, somewhere in a shared segment.
        let Some((file, first, length)) = self.payloads.get(&digest) else {
            return Ok((true, model));
        };
        if file != path {
            return Err(wrong(format!("{digest} is not in this file")));
        }
        if (*first..first + length).contains(&at) {
            let hit = (at - first) / CHUNK;
            for chunk in 0..length.div_ceil(CHUNK) {
                let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(*length);
                let whole = read_range(store, &digest, range).await;
                if whole.is_ok() == (chunk == hit) {
                    let what = format!("chunk {chunk} of {digest}, chunk {hit} hit: {whole:?}");
                    return Err(wrong(what));
                }
            }
        }
        Ok((true, model))
    }

    /// Returns whether the upload that was left continues at its offset. It may continue earlier or be gone if its own
    /// files are damaged, and never becomes other bytes than were sent.
    async fn continue_upload(&self, store: &Store, path: &Path) -> Result<bool, Violation> {
        let wrong = |what: String| Violation::new("uploads", what);
        let mut whole = true;
        for (id, sent) in &self.task.uploads {
            if !self.found.uploads.contains_key(id) {
                continue; // it was finished
            }
            let resumed = resume(store, *id, sent).await;
            let Ok(from) = resumed else {
                if !belongs_to_uploads(path) && !is_segment(path) {
                    return Err(wrong(format!("{id} is gone: {resumed:?}")));
                }
                whole = false;
                continue;
            };
            whole &= self.resumed.get(id) == Some(&from);
        }
        Ok(whole)
    }

    /// Returns whether FORMAT.md covers this byte. It does not cover bytes after the record of a checkpoint, after the
    /// last record of a shared segment and after the last checkpoint of an upload, and marks of a journal that was not
    /// closed.
    fn is_covered(&self, path: &Path, at: u64) -> bool {
        let bytes = self.image.files[path].to_vec();
        let unclosed = self.tail.as_ref().is_some_and(|(tail, _)| tail == path);
        if unclosed && (HEADER_BYTES as u64..FRAMES_START).contains(&at) {
            return false;
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with("checkpoint.")) {
            let size = bytes[12..16].try_into().map_or(0, u32::from_le_bytes);
            return at < u64::from(size);
        }
        if is_segment(path) {
            let ends = self.payloads.values().filter(|(file, ..)| file == path);
            return ends.map(|(_, first, length)| first + length).max() > Some(at);
        }
        true
    }
}

/// Causes a read with a wrong bit, once: the store records the blob as damaged, although its bytes are right.
async fn mark_damaged(machine: &Machine, store: &Store) {
    let nothing_resident = Noise {
        would_block: 100,
        ..Noise::NONE
    };
    machine.disk.set_noise(nothing_resident);
    let fault = Fault::nth(OpKind::Read, 1).on(".segment").flipping();
    machine.disk.add_fault(fault);
    let digest = content::digest(MARKED);
    drop(read(store, &digest).await);
    assert!(
        store.is_damaged(&digest).await.unwrap(),
        "the wrong bit was not noticed"
    );
    machine.disk.set_noise(Noise::default());
    let before = store.view().lsn();
    // The mark is durable by then.
    machine.env.clock.sleep(Duration::from_secs(1)).await;
    assert!(store.view().lsn() > before, "the mark was not recorded");
}

/// Returns the expected content of such a store, with the uploads that were begun in it.
pub fn task(uploads: BTreeMap<UploadId, SentUpload>) -> Task {
    let contents = CONTENTS
        .map(|number| (content::digest(number), content::bytes(number)))
        .into_iter();
    let manifests = (100..106).map(|n| (content::manifest_digest(n), content::manifest(n)));
    Task {
        seed: SEED,
        options: options(),
        universe: contents.chain(manifests).collect(),
        uploads,
    }
}

/// Returns the upload that is left open in it.
pub fn left() -> SentUpload {
    SentUpload {
        repository: "library/a".to_owned(),
        whole: content::bytes(LEFT),
        with_rolled_back: None,
        rolled_back: None,
        digest: content::digest(LEFT),
        kept_idle: None,
    }
}

/// Returns the options of its store.
pub fn options() -> Options {
    generate::options()
}

/// Returns the calls that fill the store: every kind of row and transaction, a checkpoint in the middle, several
/// journal files.
fn calls() -> Vec<Call> {
    let mut calls = Vec::new();
    let mut add = |repository: &str, operation| {
        calls.push(Call {
            repository: repository.to_owned(),
            operation,
        });
    };
    let how = How::default();
    for content in CONTENTS {
        add("library/a", Operation::Push { content, how });
    }
    let manifest = |number, children: &[u32], subject, tag: &str| Operation::Manifest {
        number,
        children: children.to_vec(),
        manifests: Vec::new(),
        subject,
        tag: (!tag.is_empty()).then(|| tag.to_owned()),
    };
    add("library/a", manifest(100, &[1, 11], None, "latest"));
    add("library/a", manifest(101, &[6], Some(100), ""));
    add("library/a", manifest(102, &[], None, "gone"));
    add("library/a", Operation::DeleteManifest(102));
    add(
        "library/a",
        Operation::Leave {
            content: LEFT,
            percent: 60,
        },
    );
    add(
        "library/a",
        Operation::Wait(std::time::Duration::from_mins(1)),
    );
    add("library/a", Operation::Checkpoint);
    let from = "library/a".to_owned();
    add("b", Operation::Mount { content: 1, from });
    add("b", manifest(103, &[1], None, "v1"));
    add("b", Operation::Unlink(1));
    for number in [104, 105] {
        add("b", manifest(number, &[], None, "v1"));
        add("b", Operation::Untag("v1".to_owned()));
    }
    calls
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|found| found == "segment")
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|found| found == "journal")
}

fn belongs_to_uploads(path: &Path) -> bool {
    path.extension().is_some_and(|found| found == "upload")
}

/// Returns whether a flip in this file may keep the store from opening: only files that nothing can replace.
fn may_refuse(path: &Path) -> bool {
    is_journal(path)
}

/// Finds each payload by its bytes; empty ones have no place.
fn payloads(image: &Image, universe: &Contents) -> BTreeMap<Digest, (PathBuf, u64, u64)> {
    let mut places = BTreeMap::new();
    for (path, content) in image.files.iter().filter(|(path, _)| is_segment(path)) {
        let bytes = content.to_vec();
        for (digest, payload) in universe {
            // A record's payload begins at a multiple of 64.
            let starts = (4096..bytes.len()).step_by(64);
            let mut starts = starts.filter(|at| bytes[*at..].starts_with(payload));
            if let Some(first) = starts.next() {
                let place = (path.clone(), first as u64, payload.len() as u64);
                places.entry(*digest).or_insert(place);
            }
        }
    }
    places
}

async fn read_range(
    store: &Store,
    digest: &Digest,
    range: std::ops::Range<u64>,
) -> Result<(), Error> {
    let Some(reader) = store.open_blob(digest).await? else {
        return Ok(());
    };
    let mut stream = reader.read(range);
    while stream.next().await?.is_some() {}
    Ok(())
}

/// Continues an upload and finishes it. Returns the offset at which it continued.
pub async fn resume(store: &Store, id: UploadId, sent: &SentUpload) -> Result<u64, Error> {
    let mut upload = store
        .open_upload(id, &sent.repository, UploadClaim::default())
        .await?;
    let offset = upload.offset();
    let rest = usize::try_from(offset).unwrap_or(usize::MAX);
    if rest <= sent.whole.len() {
        upload.write(sent.whole.slice(rest..)).await?;
    }
    let blob = upload.finish(sent.digest, None).await?;
    drop(blob);
    Ok(offset)
}
