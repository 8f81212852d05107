//! Fuzz target for a small store of the engine with some bytes changed: it is checked, opened, read and closed.
//!
//! The input: a byte of choices (which store; whether checksums are recomputed), then changes: which kind, which file,
//! where, and with what. Checked: no panic, no endless loop, no unbounded memory. Bytes that do not match their digest
//! are served only if `fsck --deep` reports them, and a store that opened and closed opens again.

use std::path::PathBuf;
use std::sync::OnceLock;

use tonnage_engine::fsck::FsckReport;
use tonnage_engine::{Digest, Error, Store};

use super::input::Input;
use super::seal;
use crate::machine::{Content, Image, Machine};
use crate::model::flips::{self, Specimen};
use crate::model::found;
use crate::model::recover::{fsck_image, store_path};
use crate::whole_blobs::{ByDigest as _, InOnePiece as _};

const STOPPED: u8 = 1;
const SEAL: u8 = 2;
/// The maximum length of a file, except for the kind of change that makes it huge.
const FILE_BYTES_MAX: u64 = 4 << 20;
const CHANGES_MAX: usize = 16;
/// The number of bytes that are read of a blob that may be too long to be read whole.
const PIECE_BYTES: u64 = 100 << 10;
const SEED: u64 = 1;

/// Runs the target on one set of changes.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choices = input.byte();
    let specimen = specimen(choices & STOPPED == 0);
    let mut image = specimen.image.clone();
    let mut changed = Vec::new();
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        changed.extend(change(&mut image, &mut input));
    }
    cut_runs(&mut image);
    if choices & SEAL != 0 {
        reseal(&mut image, &changed);
    }
    let report = fsck_image(SEED, &image);
    let wrong = open_and_read(specimen, &image);
    if let (Some(digest), Ok(report)) = (wrong, &report) {
        assert!(
            !report.is_sound(),
            "{digest} is served with other bytes, and fsck is silent: {report:?}"
        );
    }
    if let Ok(report) = report {
        look_at(&report);
    }
}

/// Returns the store, created once.
fn specimen(closed: bool) -> &'static Specimen {
    static CLOSED: OnceLock<Specimen> = OnceLock::new();
    static STOPPED: OnceLock<Specimen> = OnceLock::new();
    let which = if closed { &CLOSED } else { &STOPPED };
    which.get_or_init(|| Specimen::new(closed))
}

/// Makes one change. Returns the file.
fn change(image: &mut Image, input: &mut Input<'_>) -> Option<PathBuf> {
    let kind = input.byte();
    let paths: Vec<PathBuf> = files(image);
    let path = paths
        .get(usize::from(input.byte()) % paths.len().max(1))?
        .clone();
    let content = image.files.get_mut(&path)?;
    // An offset below 2^16 as it is, or counted from the end of the file.
    let from = u64::from(input.word());
    let at = if kind & 0x80 == 0 {
        from
    } else {
        content.len().saturating_sub(from)
    };
    match kind & 0x7f {
        0..=5 => {
            let length = usize::from(input.byte());
            let bytes = input.piece(length);
            if at <= content.len() {
                content.write(at, bytes);
            }
        }
        6 => content.set_len(at.min(content.len())),
        7 => content.grow(at.saturating_mul(64).min(FILE_BYTES_MAX)),
        8 => {
            image.files.remove(&path);
        }
        9 => {
            // The bytes of another file under this name.
            let other = paths.get(usize::from(input.byte()) % paths.len())?;
            let bytes = image.files[other].clone();
            image.files.insert(path.clone(), bytes);
        }
        10 => {
            // A piece of another file, or of this one, at this place.
            let other = paths.get(usize::from(input.byte()) % paths.len())?;
            let (offset, length) = (u64::from(input.word()), usize::from(input.word()));
            let mut piece = vec![0; length];
            let there = image.files[other].read(offset, &mut piece);
            let content = image.files.get_mut(&path)?;
            if at <= content.len() {
                content.write(at, &piece[..there]);
            }
        }
        11 => {
            // A file with a name that the store may take for its own.
            let number = u64::from_le_bytes(input.array());
            let end = path
                .extension()
                .map_or("journal", |end| end.to_str().unwrap_or("x"));
            let name = path.with_file_name(format!("{number:016x}.{end}"));
            let bytes = image.files[&path].clone();
            image.files.insert(name.clone(), bytes);
            return Some(name);
        }
        // A hole at the end: up to 16 MiB, or from 8 GiB on, longer than what is read as a whole.
        12 => {
            let exponent = match input.byte() % 34 {
                small @ ..=24 => small,
                large => large + 8,
            };
            content.grow(1 << exponent);
        }
        _ => return None,
    }
    Some(path)
}

/// Returns the store's files in the order of their names.
fn files(image: &Image) -> Vec<PathBuf> {
    let part = |path: &&PathBuf| !path.ends_with("reserve");
    image.files.keys().filter(part).cloned().collect()
}

/// Cuts runs to the limit of one input, because they are read whole at open.
fn cut_runs(image: &mut Image) {
    for (path, content) in &mut image.files {
        if path.extension().is_some_and(|end| end == "run") && content.len() > FILE_BYTES_MAX {
            content.set_len(FILE_BYTES_MAX);
        }
    }
}

/// Computes right checksums in changed files, and in those that name them.
fn reseal(image: &mut Image, changed: &[PathBuf]) {
    for path in changed {
        if let Some(content) = image.files.get_mut(path)
            && content.len() <= FILE_BYTES_MAX
        {
            let mut bytes = content.to_vec();
            seal::file(path, &mut bytes);
            *content = Content::from(bytes.as_slice());
        }
    }
    if changed
        .iter()
        .any(|path| path.extension().is_some_and(|end| end == "run"))
    {
        for slot in 0..3 {
            let path = store_path().join(format!("checkpoint.{slot}"));
            let content = image.files.get(&path);
            let Some(content) = content.filter(|content| content.len() <= FILE_BYTES_MAX) else {
                continue;
            };
            let mut record = content.to_vec();
            seal::name_headers(&mut record, |id| {
                let path = store_path().join("runs").join(format!("{id:016x}.run"));
                let mut header = vec![0; 4096];
                let there = image.files.get(&path)?.read(0, &mut header);
                (there == 4096).then(|| seal::header_crc(&header))
            });
            image.files.insert(path, Content::from(record.as_slice()));
        }
    }
}

/// Opens the store, reads everything, continues its upload, closes it, opens it again. Returns a digest for which other
/// bytes were served.
fn open_and_read(specimen: &Specimen, image: &Image) -> Option<Digest> {
    let machine = Machine::new(SEED, image);
    let (wrong, closed) = machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &store_path(), flips::options()).await;
        let Ok((store, _)) = opened else {
            return (None, false);
        };
        if let Ok(model) = found::snapshot(&store).await {
            drop(found::reverses(&store, &model).await);
            drop(found::usages(&store).await);
        }
        let mut wrong = None;
        for digest in specimen.task.universe.keys() {
            if read(&store, digest).await == Ok(false) {
                wrong = Some(*digest);
            }
        }
        for (id, sent) in &specimen.task.uploads {
            drop(flips::resume(&store, *id, sent).await);
        }
        drop(store.stats().await);
        (wrong, store.close().await.is_ok())
    });
    if closed {
        machine.executor.settle();
        let again = Machine::new(SEED, &machine.disk.live_image());
        again.executor.block_on(async {
            let opened = Store::open(again.env.clone(), &store_path(), flips::options()).await;
            if let Err(error) = opened {
                panic!("a closed store does not open: {error}");
            }
        });
    }
    wrong
}

/// Returns whether a blob's bytes match its digest, or an error if they are not served.
async fn read(store: &Store, digest: &Digest) -> Result<bool, ()> {
    let read = async {
        match store.open_blob(digest).await? {
            Some(reader) => {
                // As a client that disconnects: a read of a blob that is too long is begun and dropped.
                let mut beginning = reader.read(0..PIECE_BYTES);
                while beginning.next().await?.is_some() {}
                reader.read_whole(8 << 20).await.map(Some)
            }
            None => Ok::<_, Error>(None),
        }
    };
    match read.await {
        Ok(Some(bytes)) => Ok(Digest::of(digest.algorithm(), &bytes) == *digest),
        Ok(None) | Err(_) => Err(()),
    }
}

/// Checks that findings are messages: none empty, none too long.
fn look_at(report: &FsckReport) {
    for finding in &report.findings {
        assert!((1..4096).contains(&finding.what.len()), "{finding:?}");
    }
}
