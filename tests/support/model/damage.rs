//! A closed store with wrong bytes: flipped bits, sectors of zeros, blocks that went to another place.
//!
//! Owns: [`check`]. Demanded: nothing wrong is served, nothing panics, no names are lost in silence. A store that was closed
//! cleanly has no torn tail, so whatever is wrong with its journal must be refused.

use std::path::PathBuf;

use tonnage_engine::{Digest, Error, Store};

use super::census::Census;
use super::found;
use super::recover::{Found, Task, Violation, fsck_image, guarded, store_path};
use crate::sim::{Image, Prng, SimEnv};

/// Damaged copies of each closed store.
const COPIES: usize = 12;
const BLOCK: u64 = 4096;
const SECTOR: usize = 512;

/// Damages a closed store in several ways, one at a time, and looks at each.
pub fn check(
    task: &Task,
    image: &Image,
    found: &Found,
    census: &mut Census,
) -> Result<(), Violation> {
    let mut prng = Prng::new(task.seed ^ 0x6461_6d61_6765);
    for _ in 0..COPIES {
        let Some((damaged, what)) = damage(image, &mut prng) else {
            return Ok(());
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

/// A copy in which one thing is wrong, and what.
fn damage(image: &Image, prng: &mut Prng) -> Option<(Image, String)> {
    let weights = |path: &PathBuf| {
        let name = path.to_string_lossy();
        usize::from(name.ends_with(".journal")) * 6
            + usize::from(name.ends_with(".segment")) * 4
            + usize::from(name.ends_with(".base")) * 2
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
    let at = prng.below(content.len() as usize) as u64;
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
    (damaged != *image).then_some((damaged, what))
}

/// What comes of it: where it is noticed.
fn look(task: &Task, image: &Image, found: &Found) -> Result<&'static str, Violation> {
    let noticed = match fsck_image(task.seed, image) {
        Ok(report) => !report.findings.is_empty(),
        Err(_) => true,
    };
    let machine = SimEnv::new(task.seed, image);
    machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &store_path(), task.options.clone()).await;
        let Ok((store, _)) = opened else {
            return if noticed {
                Ok("refused at open")
            } else {
                Err(Violation::new(
                    "damage",
                    "fsck finds nothing wrong with what does not open",
                ))
            };
        };
        let mut model = match found::snapshot(&store) {
            Ok(model) => model,
            Err(_) => return Ok("error on a listing"),
        };
        let mut unreadable = false;
        for digest in &task.universe {
            let stored = store.view().blob(digest);
            if !matches!(stored, Ok(None)) {
                model.stored.insert(*digest);
                unreadable |= !read(&store, digest).await?;
            }
        }
        if model != found.model {
            let what = format!("names changed:\n found {model:?}\n were  {:?}", found.model);
            return Err(Violation::new("damage", what));
        }
        if unreadable && !noticed {
            return Err(Violation::new("damage", "fsck does not see a damaged blob"));
        }
        drop(store.close().await);
        Ok(match (unreadable, noticed) {
            (true, _) => "error on a read",
            (false, true) => "found by fsck, a cache or an upload",
            (false, false) => "no byte that matters",
        })
    })
}

/// Whether a blob reads back; other bytes than its own are a violation.
async fn read(store: &Store, digest: &Digest) -> Result<bool, Violation> {
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
