//! Unsynced writes that a drive put elsewhere.
//!
//! Owns: [`Stray`]. No store can be whole after that: what it must do is notice, so these images are judged as damage is, and stand
//! apart from the ones that a stop may leave (`crash`).

use super::crash::{CrashImage, Luck, build};
use super::disk::Stop;
use super::image::Image;
use super::prng::Prng;
use super::state::{Data, Fate, MachineState};

/// Bytes of a frame's header, its checksum included (FORMAT.md, "Journal").
const FRAME_HEADER_BYTES: usize = 64;
/// What a drive writes as a whole: writes go astray by multiples of it.
const SECTOR_BYTES: u64 = 512;

/// A write that was lost where it belongs, and is somewhere else.
#[derive(Debug, Clone)]
pub struct Stray {
    /// The image in which it is only lost.
    pub without: CrashImage,
    /// The same with its bytes at another place, over what was there.
    pub image: Image,
    /// What went where.
    pub label: String,
    /// Whether it is a frame of the journal: those say where they belong.
    pub is_frame: bool,
}

impl Stop<'_> {
    /// Up to `count` of them, drawn by `seed`; none if nothing is unsynced.
    pub fn strays(&self, seed: u64, count: usize) -> Vec<Stray> {
        let mut prng = Prng::new(seed ^ 0x7374_7261_7973);
        let drawn = (0..count).filter_map(|_| stray(self.machine(), &mut prng));
        drawn.collect()
    }
}

fn stray(machine: &MachineState, prng: &mut Prng) -> Option<Stray> {
    let effects = machine.files.iter().flat_map(|file| &file.effects);
    let writes: Vec<_> = effects
        .filter(|effect| effect.fate != Fate::Durable)
        .filter_map(|effect| match &effect.change {
            Data::Write { offset, bytes } if !bytes.is_empty() => {
                Some((effect.number, *offset, bytes))
            }
            Data::Write { .. } | Data::SetLen(_) | Data::Grow(_) => None,
        })
        .collect();
    if writes.is_empty() {
        return None;
    }
    let (gone, offset, bytes) = writes[prng.below(writes.len())];
    let image = build(machine, |number, _| {
        if number == gone {
            Luck::Lost
        } else {
            Luck::Kept
        }
    });
    let hash = image.stable_hash();
    let label = format!("without the write of effect {gone}");
    let without = CrashImage {
        label,
        image: image.clone(),
        hash,
    };
    let mut image = image;
    let mut files = image.files.iter_mut();
    let number = prng.below(files.len());
    let (path, content) = files.nth(number)?;
    let sectors = content.len() / SECTOR_BYTES;
    if sectors == 0 {
        return None;
    }
    let to = prng.below(sectors as usize) as u64 * SECTOR_BYTES + offset % SECTOR_BYTES;
    let room = content.len().saturating_sub(to).min(bytes.len() as u64) as usize;
    let label = format!(
        "{room} bytes for byte {offset} went to byte {to} of {}",
        path.display()
    );
    content.write(to, &bytes[..room]);
    // At its own place it went nowhere.
    let kept = build(machine, |_, _| Luck::Kept);
    (image != kept).then(|| Stray {
        without,
        image,
        label,
        // Less than its header says nothing of where it belongs.
        is_frame: bytes.starts_with(b"TFRM") && room >= FRAME_HEADER_BYTES,
    })
}
