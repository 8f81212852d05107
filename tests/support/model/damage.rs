//! Stopped stores with wrong bytes: flipped bits, zeroed sectors, blocks and unsynced writes at a wrong place.
//!
//! Owns: [`check`], [`check_misdirected`]. Checked: no wrong bytes are served, nothing panics, and no names are lost
//! unnoticed. The last frame of a journal that was not closed is left unchanged, because damage there cannot be
//! distinguished from a torn write.

use std::path::PathBuf;

use tonnage_engine::{Digest, Error, Store};

use super::census::Census;
use super::found;
use super::recover::{Found, Task, Violation, fsck_image, guarded, open_damaged, store_path};
use crate::machine::{Image, Machine, MisdirectedWrite, Prng};
use crate::whole_blobs::{ByDigest as _, InOnePiece as _};

/// The number of damaged copies of each store.
const COPIES: usize = 16;
/// The number of bytes drawn in search of one that is not zero: most of a small store is padding.
const DRAWS: usize = 6;
const BLOCK: u64 = 4096;
const SECTOR: usize = 512;

/// Damages a closed store in several ways, one at a time, and checks each.
pub fn check(
    task: &Task,
    image: &Image,
    found: &Found,
    closed: bool,
    census: &mut Census,
) -> Result<(), Violation> {
    let tail = if closed { None } else { last_frames(image) };
    let mut prng = Prng::new(task.seed ^ 0x6461_6d61_6765);
    for _ in 0..COPIES {
        let Some((damaged, what)) = damage(image, tail.as_ref(), &mut prng) else {
            continue;
        };
        census.damaged += 1;
        let outcome = guarded("panic on damage", || look(task, &damaged, found));
        let outcome = outcome.map_err(|violation| {
            Violation::new(violation.check, format!("{what}: {}", violation.what))
        })?;
        *census.by_damage.entry(outcome).or_default() += 1;
    }
    Ok(())
}

/// Checks a store with a misdirected unsynced write. `found` is the content without it.
pub fn check_misdirected(
    task: &Task,
    stray: &MisdirectedWrite,
    found: &Found,
    census: &mut Census,
) -> Result<(), Violation> {
    let tail = last_frames(&stray.without.image);
    let spared = tail
        .as_ref()
        .is_none_or(|tail| is_spared(tail, &stray.without.image, &stray.image));
    // A frame contains its place, so it is no torn write at another place, also over the last frame.
    if stray.image == stray.without.image || !(spared || stray.is_frame) {
        return Ok(());
    }
    census.strays += 1;
    let looked = guarded("panic on damage", || look(task, &stray.image, found));
    let outcome = looked.map_err(|violation| {
        let what = format!("{}: {}", stray.label, violation.what);
        Violation::new(violation.check, what)
    })?;
    *census.by_damage.entry(outcome).or_default() += 1;
    Ok(())
}

/// Returns whether nothing changed from the last frames of the journal on.
fn is_spared((journal, from): &(PathBuf, u64), one: &Image, other: &Image) -> bool {
    let end = |image: &Image| {
        let mut bytes = image.files[journal].to_vec();
        bytes.split_off((*from as usize).min(bytes.len()))
    };
    end(one) == end(other)
}

/// Returns where the last frame but one of the journal begins: if the last one is torn, that one is the last valid one.
pub(super) fn last_frames(image: &Image) -> Option<(PathBuf, u64)> {
    let began = |path: &&PathBuf| {
        let mut magic = [0; 8];
        image.files[*path].read(0, &mut magic);
        path.to_string_lossy().ends_with(".journal") && magic == *b"TNJOURNL"
    };
    let path = image.files.keys().rfind(began)?;
    let bytes = image.files[path].to_vec();
    let frames = bytes.chunks(BLOCK as usize).enumerate();
    let frames = frames.filter(|(_, block)| block.starts_with(b"TFRM"));
    let places: Vec<u64> = frames.map(|(number, _)| number as u64 * BLOCK).collect();
    let from = places.len().checked_sub(2).map_or(0, |at| places[at]);
    Some((path.clone(), from))
}

/// Returns a copy with one damage, and its description. `tail` stays unchanged.
fn damage(
    image: &Image,
    tail: Option<&(PathBuf, u64)>,
    prng: &mut Prng,
) -> Option<(Image, String)> {
    let weights = |path: &PathBuf| {
        let name = path.to_string_lossy();
        usize::from(name.ends_with(".journal")) * 6
            + usize::from(name.ends_with(".segment")) * 4
            + usize::from(name.ends_with(".run")) * 2
            + usize::from(name.contains("checkpoint."))
            + usize::from(name.ends_with("superblock"))
            + usize::from(name.ends_with(".upload"))
    };
    let files: Vec<&PathBuf> = image
        .files
        .iter()
        .filter(|(_, content)| !content.is_empty())
        .flat_map(|(path, _)| std::iter::repeat_n(path, weights(path)))
        .collect();
    if files.is_empty() {
        return None;
    }
    let path = files[prng.below(files.len())].clone();
    let mut damaged = image.clone();
    let content = damaged.files.get_mut(&path)?;
    let mut at = 0;
    for _ in 0..DRAWS {
        at = prng.below(content.len() as usize) as u64;
        let mut byte = [0];
        content.read(at, &mut byte);
        if byte != [0] {
            break;
        }
    }
    let name = path.file_name()?.to_string_lossy().into_owned();
    let what = match prng.below(4) {
        0 | 1 => {
            let mut byte = [0];
            content.read(at, &mut byte);
            byte[0] ^= 1 << prng.below(8);
            content.write(at, &byte);
            format!("a bit of byte {at} of {name} flipped")
        }
        2 => {
            let at = at / SECTOR as u64 * SECTOR as u64;
            let length = SECTOR.min((content.len() - at) as usize);
            content.write(at, &vec![0; length]);
            format!("the sector at byte {at} of {name} zero")
        }
        _ => {
            let (from, to) = (
                at / BLOCK * BLOCK,
                prng.below(content.len() as usize) as u64,
            );
            let to = to / BLOCK * BLOCK;
            let length = BLOCK.min(content.len() - from.max(to)) as usize;
            let mut block = vec![0; length];
            content.read(from, &mut block);
            content.write(to, &block);
            format!("the block at byte {from} of {name} written to byte {to}")
        }
    };
    (damaged != *image && tail.is_none_or(|tail| is_spared(tail, image, &damaged)))
        .then_some((damaged, what))
}

/// Opens a damaged store. Returns where the damage is noticed.
fn look(task: &Task, image: &Image, found: &Found) -> Result<&'static str, Violation> {
    let noticed = match fsck_image(task.seed, image) {
        Ok(report) => !report.findings.is_empty(),
        Err(_) => true,
    };
    let machine = Machine::new(task.seed, image);
    machine.executor.block_on(async {
        let read_damaged = async |store: &Store| {
            for digest in task.universe.keys() {
                let read = read(store, digest).await;
                read.expect("wrong bytes from a damaged run");
            }
        };
        let Ok(store) = open_damaged(&machine, &task.options, read_damaged).await else {
            return if noticed {
                Ok("refused at open")
            } else {
                Err(Violation::new(
                    "damage",
                    "fsck finds nothing wrong with what does not open",
                ))
            };
        };
        let mut model = match found::snapshot(&store).await {
            Ok(model) => model,
            Err(_) => return Ok("error on a listing"),
        };
        let (mut unreadable, mut known) = (false, Vec::new());
        for digest in task.universe.keys() {
            let stored = store.view().read(|view| view.blob(digest)).await;
            if matches!(stored, Ok(None)) {
                continue;
            }
            model.stored.insert(*digest);
            if !read(&store, digest).await? {
                unreadable = true;
                known.extend(stored.is_ok().then_some(*digest));
            }
        }
        if model != found.model {
            let what = format!("names changed:\n found {model:?}\n were  {:?}", found.model);
            return Err(Violation::new("damage", what));
        }
        if unreadable && !noticed {
            return Err(Violation::new("damage", "fsck does not see a damaged blob"));
        }
        if store.close().await.is_ok() {
            drop(store);
            remembered(task, &machine, &known).await?;
        }
        Ok(match (unreadable, noticed) {
            (true, _) => "error on a read",
            (false, true) => "found by fsck, a cache or an upload",
            (false, false) => "no byte that matters",
        })
    })
}

/// Checks that damage found by reads is known to the next start before it reads anything.
async fn remembered(task: &Task, machine: &Machine, known: &[Digest]) -> Result<(), Violation> {
    if known.is_empty() {
        return Ok(());
    }
    let opened = Store::open(machine.env.clone(), &store_path(), task.options.clone()).await;
    let (store, _) = opened.map_err(|error| Violation::new("damage", error.to_string()))?;
    let mut forgotten = Vec::new();
    for digest in known {
        // A blob whose row cannot be read is not reported as intact.
        if matches!(store.is_damaged(digest).await, Ok(false)) {
            forgotten.push(digest);
        }
    }
    drop(store.close().await);
    if forgotten.is_empty() {
        return Ok(());
    }
    let what = format!("a restart forgot that these are damaged: {forgotten:?}");
    Err(Violation::new("damage", what))
}

/// Returns whether a blob reads back. Wrong bytes are a violation.
pub(super) async fn read(store: &Store, digest: &Digest) -> Result<bool, Violation> {
    let read = async {
        let reader = store.open_blob(digest).await?;
        match reader {
            Some(reader) => reader.read_whole(1 << 30).await.map(Some),
            None => Ok(None),
        }
    };
    match read.await {
        Err(Error::Corrupt(_) | Error::Io { .. }) | Ok(None) => Ok(false),
        Err(error) => Err(Violation::new("damage", format!("{digest}: {error}"))),
        Ok(Some(bytes)) if Digest::of(digest.algorithm(), &bytes) == *digest => Ok(true),
        Ok(Some(_)) => Err(Violation::new(
            "damage",
            format!("{digest} was served with other bytes"),
        )),
    }
}
