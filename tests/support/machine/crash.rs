//! The images that a stop may leave.
//!
//! Owns: [`Policy`] (how many of each kind), [`CrashImage`], the rules.
//!
//! The rules: durable effects stay. Any other effect may be lost or kept, independently. Kept effects are applied in
//! the order in which they happened. Data under a lost name is unreachable. A write may reach the disk in part, in
//! units of 512 bytes; the missing part reads as the old bytes, or zeros.

use std::collections::{BTreeSet, HashSet};

use super::disk::SimDisk;
use super::image::Image;
use super::prng::Prng;
use super::state::{Data, Durability, MachineState, build_image};

/// The unit that a drive writes as a whole.
const SECTOR_BYTES: u64 = 512;

/// The number of images of each kind. If there are more, evenly drawn ones are used. "Only durable effects" and "all
/// effects" are always among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// All effects up to some effect, none after it.
    pub prefixes: usize,
    /// All effects but one.
    pub single_losses: usize,
    /// All effects but two.
    pub pairs: usize,
    /// All effects, with the last write in part: once cut off, once with missing sectors.
    pub torn: usize,
    /// Any subset, with some writes in part.
    pub subsets: usize,
    /// The seed for random choices.
    pub seed: u64,
}

impl Policy {
    /// Returns a policy with a dozen or two images for each stop, for sweeps over every crash point.
    pub fn coarse(seed: u64) -> Self {
        Self {
            prefixes: 6,
            single_losses: 6,
            pairs: 0,
            torn: 6,
            subsets: 6,
            seed,
        }
    }

    /// Returns a policy with a few images for each stop, for sweeps over many histories.
    pub fn sparse(seed: u64) -> Self {
        Self {
            prefixes: 1,
            single_losses: 1,
            pairs: 1,
            torn: 2,
            subsets: 2,
            seed,
        }
    }

    /// Returns the smallest policy with a loss, a torn write and a reordering, for stores whose images take long to
    /// check.
    pub fn thin(seed: u64) -> Self {
        Self {
            prefixes: 0,
            single_losses: 1,
            pairs: 0,
            torn: 1,
            subsets: 1,
            seed,
        }
    }

    /// Returns a policy with up to some hundred images for each stop.
    pub fn thorough(seed: u64) -> Self {
        Self {
            prefixes: 100,
            single_losses: 100,
            pairs: 60,
            torn: 40,
            subsets: 60,
            seed,
        }
    }
}

/// A possible content of the disk after the stop.
#[derive(Debug, Clone)]
pub struct CrashImage {
    /// How it was produced, e.g. `without effect 17 of 18`; for messages.
    pub label: String,
    /// The content.
    pub image: Image,
    /// Its [`Image::stable_hash`].
    pub hash: u64,
}

/// The fate of one effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum EffectFate {
    #[default]
    Kept,
    Lost,
    /// Only these sectors of a write, counted from the one of its first byte; and whether the new size is kept.
    Torn {
        sectors: BTreeSet<u64>,
        size: bool,
    },
}

impl SimDisk {
    /// Returns the legal images of this disk after a stop now, without duplicates. The first one has only durable
    /// effects, the second (if it differs) all.
    pub fn crash_images(&self, policy: &Policy) -> Vec<CrashImage> {
        self.with_state(|state| images_of(&state.machine, policy))
    }

    /// Returns the image in which nothing survives that was not synced.
    pub fn durable_image(&self) -> Image {
        self.with_state(|state| build(&state.machine, |_, _| EffectFate::Lost))
    }
}

/// Returns the images of [`SimDisk::crash_images`].
pub(super) fn images_of(machine: &MachineState, policy: &Policy) -> Vec<CrashImage> {
    Enumeration::new(machine, policy).run()
}

struct Enumeration<'a> {
    machine: &'a MachineState,
    policy: &'a Policy,
    prng: Prng,
    /// The numbers of the effects that are not durable, oldest first.
    effects: Vec<u64>,
    seen: HashSet<u64>,
    images: Vec<CrashImage>,
}

impl<'a> Enumeration<'a> {
    fn new(machine: &'a MachineState, policy: &'a Policy) -> Self {
        let data = machine.files.iter().flat_map(|file| {
            file.effects
                .iter()
                .map(|effect| (effect.number, effect.fate))
        });
        let names = machine
            .entries
            .values()
            .flatten()
            .map(|effect| (effect.number, effect.fate));
        let open = data
            .chain(names)
            .filter(|(_, fate)| *fate != Durability::Durable);
        let mut effects: Vec<u64> = open.map(|(number, _)| number).collect();
        effects.sort_unstable();
        let prng = Prng::new(policy.seed ^ machine.newest());
        Self {
            machine,
            policy,
            prng,
            effects,
            seen: HashSet::new(),
            images: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<CrashImage> {
        let total = self.effects.len();
        self.add("only what is durable".to_owned(), |_, _| EffectFate::Lost);
        self.add("everything".to_owned(), |_, _| EffectFate::Kept);
        for count in self.draw(total, self.policy.prefixes) {
            let last = self.effects[count];
            let label = format!("the first {} of {total} effects", count + 1);
            self.add(label, |number, _| {
                if number <= last {
                    EffectFate::Kept
                } else {
                    EffectFate::Lost
                }
            });
        }
        for lost in self.draw(total, self.policy.single_losses) {
            let gone = self.effects[lost];
            let label = format!("without effect {} of {total}", lost + 1);
            self.add(label, |number, _| {
                if number == gone {
                    EffectFate::Lost
                } else {
                    EffectFate::Kept
                }
            });
        }
        self.lose_pairs();
        self.tear_last_write();
        for number in 0..self.policy.subsets {
            let mut prng = Prng::new(self.prng.next_u64());
            self.add(
                format!("subset {number} of {total} effects"),
                |_, data| match prng.below(8) {
                    0..=3 => EffectFate::Kept,
                    4 => data.map_or(EffectFate::Kept, |data| tear(data, &mut prng)),
                    _ => EffectFate::Lost,
                },
            );
        }
        self.images
    }

    fn lose_pairs(&mut self) {
        let total = self.effects.len();
        if total < 3 {
            return; // without both of two: the durable image
        }
        for _ in 0..self.policy.pairs.min(total * (total - 1) / 2) {
            let first = self.prng.below(total);
            let second = (first + 1 + self.prng.below(total - 1)) % total;
            let gone = [self.effects[first], self.effects[second]];
            let label = format!(
                "without effects {} and {} of {total}",
                first + 1,
                second + 1
            );
            self.add(label, |number, _| {
                if gone.contains(&number) {
                    EffectFate::Lost
                } else {
                    EffectFate::Kept
                }
            });
        }
    }

    fn tear_last_write(&mut self) {
        let files = self.machine.files.iter().flat_map(|file| &file.effects);
        let writes = files.filter(|effect| {
            effect.fate != Durability::Durable && matches!(effect.change, Data::Write { .. })
        });
        let Some(last) = writes.max_by_key(|effect| effect.number) else {
            return;
        };
        let sectors = sector_count(&last.change);
        for kept in self.draw(sectors as usize, self.policy.torn.div_ceil(2)) {
            let fate = EffectFate::Torn {
                sectors: (0..kept as u64).collect(),
                size: false,
            };
            self.add(
                format!("the last write cut off after {kept} of {sectors} sectors"),
                |number, _| {
                    if number == last.number {
                        fate.clone()
                    } else {
                        EffectFate::Kept
                    }
                },
            );
        }
        for number in 0..self.policy.torn / 2 {
            let mut prng = Prng::new(self.prng.next_u64());
            let fate = tear(&last.change, &mut prng);
            self.add(
                format!("the last write with sectors missing, {number}"),
                |number, _| {
                    if number == last.number {
                        fate.clone()
                    } else {
                        EffectFate::Kept
                    }
                },
            );
        }
    }

    /// Draws at most `count` of `0..total`, ascending.
    fn draw(&mut self, total: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..total).collect();
        if total > count {
            self.prng.shuffle(&mut all);
            all.truncate(count);
            all.sort_unstable();
        }
        all
    }

    fn add(&mut self, label: String, fate: impl FnMut(u64, Option<&Data>) -> EffectFate) {
        let image = build(self.machine, fate);
        let hash = image.stable_hash();
        if self.seen.insert(hash) {
            self.images.push(CrashImage { label, image, hash });
        }
    }
}

/// Builds the image in which each effect that is not durable has the given fate.
pub(super) fn build(
    machine: &MachineState,
    mut fate: impl FnMut(u64, Option<&Data>) -> EffectFate,
) -> Image {
    let mut names = machine.durable_names.clone();
    for entry in machine.entries.values().flatten() {
        if entry.fate == Durability::Durable || fate(entry.number, None) != EffectFate::Lost {
            entry.change.apply(&mut names);
        }
    }
    build_image(&names, |inode| {
        let file = &machine.files[inode];
        let mut content = file.durable.clone();
        for effect in &file.effects {
            if effect.fate == Durability::Durable {
                effect.change.apply(&mut content);
                continue;
            }
            match fate(effect.number, Some(&effect.change)) {
                EffectFate::Kept => effect.change.apply(&mut content),
                EffectFate::Lost => {}
                EffectFate::Torn { sectors, size } => {
                    for part in torn_parts(&effect.change, &sectors) {
                        part.apply(&mut content);
                    }
                    if let (true, Data::Write { offset, bytes }) = (size, &effect.change) {
                        content.grow(offset + bytes.len() as u64);
                    }
                }
            }
        }
        content
    })
}

/// Returns the number of sectors that a change touches; only writes can be torn.
fn sector_count(change: &Data) -> u64 {
    match change {
        Data::Write { offset, bytes } => {
            let end = offset + bytes.len() as u64;
            end.div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES
        }
        Data::SetLen(_) | Data::Grow(_) => 0,
    }
}

/// Tears a change at random; a change that is no write is kept.
fn tear(change: &Data, prng: &mut Prng) -> EffectFate {
    match sector_count(change) {
        0 => EffectFate::Kept,
        count => {
            let sectors = (0..count).filter(|_| prng.percent(50)).collect();
            EffectFate::Torn {
                sectors,
                size: prng.percent(50),
            }
        }
    }
}

/// Returns the parts of a write in `sectors`.
fn torn_parts(change: &Data, sectors: &BTreeSet<u64>) -> Vec<Data> {
    let Data::Write { offset, bytes } = change else {
        return vec![change.clone()];
    };
    let (first, end) = (offset / SECTOR_BYTES, offset + bytes.len() as u64);
    let part = |sector: &u64| {
        let from = ((first + sector) * SECTOR_BYTES).max(*offset);
        let to = ((first + sector + 1) * SECTOR_BYTES).min(end);
        let range = (from - offset) as usize..(to - offset) as usize;
        Data::Write {
            offset: from,
            bytes: bytes.slice(range),
        }
    };
    sectors.iter().map(part).collect()
}
