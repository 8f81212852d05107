//! Unsynced writes that a drive put at a wrong place.
//!
//! Owns: [`MisdirectedWrite`]. No store can be intact after one; it must notice. So these images are checked as damage,
//! apart from the ones that a stop may leave (`crash`).

use super::crash::{CrashImage, EffectFate, build};
use super::disk::Stop;
use super::image::Image;
use super::prng::Prng;
use super::state::{Data, Durability, MachineState};

/// Bytes of a frame's header, its checksum included (FORMAT.md, "Journal").
const FRAME_HEADER_BYTES: usize = 64;
/// The unit that a drive writes as a whole: writes are misdirected by multiples of it.
const SECTOR_BYTES: u64 = 512;

/// A write that is missing at its place and present at another one.
#[derive(Debug, Clone)]
pub struct MisdirectedWrite {
    /// The image in which it is only missing.
    pub without: CrashImage,
    /// The same with its bytes at another place, over the old ones.
    pub image: Image,
    /// A description of the write and its place, for messages.
    pub label: String,
    /// Whether it is a frame of the journal; a frame contains its own place.
    pub is_frame: bool,
}

impl Stop<'_> {
    /// Returns up to `count` misdirected writes, drawn by `seed`; none if nothing is unsynced.
    pub fn misdirected_writes(&self, seed: u64, count: usize) -> Vec<MisdirectedWrite> {
        let mut prng = Prng::new(seed ^ 0x7374_7261_7973);
        let drawn = (0..count).filter_map(|_| stray(self.machine(), &mut prng));
        drawn.collect()
    }
}

fn stray(machine: &MachineState, prng: &mut Prng) -> Option<MisdirectedWrite> {
    let effects = machine.files.iter().flat_map(|file| &file.effects);
    let writes: Vec<_> = effects
        .filter(|effect| effect.fate != Durability::Durable)
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
            EffectFate::Lost
        } else {
            EffectFate::Kept
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
    // The other place was its own.
    let kept = build(machine, |_, _| EffectFate::Kept);
    (image != kept).then(|| MisdirectedWrite {
        without,
        image,
        label,
        // A part of its header does not contain its place.
        is_frame: bytes.starts_with(b"TFRM") && room >= FRAME_HEADER_BYTES,
    })
}
