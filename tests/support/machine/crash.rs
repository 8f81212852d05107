//! Which images a stop may leave behind.
//!
//! Owns: [`Policy`] (how many of each sort), [`CrashImage`], the rules.
//!
//! The rules: what is durable stays; any of the rest may be lost or there, each by itself; what is there is
//! applied in the order in which it happened; data under a name that is lost is unreachable; a write may
//! reach the disk in part, in units of 512 bytes, and what is missing of it reads as what was there before, or
//! zeros.

use std::collections::{BTreeSet, HashSet};

use super::disk::SimDisk;
use super::image::Image;
use super::prng::Prng;
use super::state::{Data, Fate, MachineState, build_image};

/// What a drive writes as a whole.
const SECTOR_BYTES: u64 = 512;

/// How many images of each sort; beyond a number, evenly drawn ones are taken. "All durable effects and no
/// other" and "everything" are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Everything up to some effect, nothing after.
    pub prefixes: usize,
    /// Everything but one effect.
    pub single_losses: usize,
    /// Everything but two effects.
    pub pairs: usize,
    /// Everything, but the last write in part: once cut off, once with sectors missing.
    pub torn: usize,
    /// Any subset, some writes in part.
    pub subsets: usize,
    /// For what is drawn.
    pub seed: u64,
}

impl Policy {
    /// A dozen or two images for each stop: for sweeps over every crash point.
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

    /// A few images for each stop: for sweeps over many histories.
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

    /// The fewest that have a loss, a torn write and a disorder: for stores whose images take long to judge.
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

    /// Up to some hundred images for each stop.
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

/// One thing that may be on the disk after the stop.
#[derive(Debug, Clone)]
pub struct CrashImage {
    /// How it came to be, e.g. `without effect 17 of 18`; for messages.
    pub label: String,
    /// What is there.
    pub image: Image,
    /// [`Image::stable_hash`] of it.
    pub hash: u64,
}

/// What becomes of an effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Luck {
    #[default]
    Kept,
    Lost,
    /// Only these sectors of a write, counted from the one its first byte is in; whether the size counts too.
    Torn {
        sectors: BTreeSet<u64>,
        size: bool,
    },
}

impl SimDisk {
    /// Legal images of this disk after a stop now, each different from the others; the first holds only
    /// what is durable, the second everything (where it differs).
    pub fn crash_images(&self, policy: &Policy) -> Vec<CrashImage> {
        self.with_state(|state| images_of(&state.machine, policy))
    }

    /// What is left if nothing survives that was not synced.
    pub fn durable_image(&self) -> Image {
        self.with_state(|state| build(&state.machine, |_, _| Luck::Lost))
    }
}

/// As [`SimDisk::crash_images`].
pub(super) fn images_of(machine: &MachineState, policy: &Policy) -> Vec<CrashImage> {
    Enumeration::new(machine, policy).run()
}

struct Enumeration<'a> {
    machine: &'a MachineState,
    policy: &'a Policy,
    prng: Prng,
    /// Numbers of the effects that are not durable, oldest first.
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
        let open = data.chain(names).filter(|(_, fate)| *fate != Fate::Durable);
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
        self.add("only what is durable".to_owned(), |_, _| Luck::Lost);
        self.add("everything".to_owned(), |_, _| Luck::Kept);
        for count in self.draw(total, self.policy.prefixes) {
            let last = self.effects[count];
            let label = format!("the first {} of {total} effects", count + 1);
            self.add(label, |number, _| {
                if number <= last {
                    Luck::Kept
                } else {
                    Luck::Lost
                }
            });
        }
        for lost in self.draw(total, self.policy.single_losses) {
            let gone = self.effects[lost];
            let label = format!("without effect {} of {total}", lost + 1);
            self.add(label, |number, _| {
                if number == gone {
                    Luck::Lost
                } else {
                    Luck::Kept
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
                    0..=3 => Luck::Kept,
                    4 => data.map_or(Luck::Kept, |data| tear(data, &mut prng)),
                    _ => Luck::Lost,
                },
            );
        }
        self.images
    }

    fn lose_pairs(&mut self) {
        let total = self.effects.len();
        if total < 3 {
            return; // two of two: the durable image
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
                    Luck::Lost
                } else {
                    Luck::Kept
                }
            });
        }
    }

    fn tear_last_write(&mut self) {
        let files = self.machine.files.iter().flat_map(|file| &file.effects);
        let writes = files.filter(|effect| {
            effect.fate != Fate::Durable && matches!(effect.change, Data::Write { .. })
        });
        let Some(last) = writes.max_by_key(|effect| effect.number) else {
            return;
        };
        let sectors = sector_count(&last.change);
        for kept in self.draw(sectors as usize, self.policy.torn.div_ceil(2)) {
            let luck = Luck::Torn {
                sectors: (0..kept as u64).collect(),
                size: false,
            };
            self.add(
                format!("the last write cut off after {kept} of {sectors} sectors"),
                |number, _| {
                    if number == last.number {
                        luck.clone()
                    } else {
                        Luck::Kept
                    }
                },
            );
        }
        for number in 0..self.policy.torn / 2 {
            let mut prng = Prng::new(self.prng.next_u64());
            let luck = tear(&last.change, &mut prng);
            self.add(
                format!("the last write with sectors missing, {number}"),
                |number, _| {
                    if number == last.number {
                        luck.clone()
                    } else {
                        Luck::Kept
                    }
                },
            );
        }
    }

    /// At most `count` of `0..total`, ascending.
    fn draw(&mut self, total: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..total).collect();
        if total > count {
            self.prng.shuffle(&mut all);
            all.truncate(count);
            all.sort_unstable();
        }
        all
    }

    fn add(&mut self, label: String, luck: impl FnMut(u64, Option<&Data>) -> Luck) {
        let image = build(self.machine, luck);
        let hash = image.stable_hash();
        if self.seen.insert(hash) {
            self.images.push(CrashImage { label, image, hash });
        }
    }
}

/// Builds the image in which each effect that is not durable has the luck it is given.
pub(super) fn build(
    machine: &MachineState,
    mut luck: impl FnMut(u64, Option<&Data>) -> Luck,
) -> Image {
    let mut names = machine.durable_names.clone();
    for entry in machine.entries.values().flatten() {
        if entry.fate == Fate::Durable || luck(entry.number, None) != Luck::Lost {
            entry.change.apply(&mut names);
        }
    }
    build_image(&names, |inode| {
        let file = &machine.files[inode];
        let mut content = file.durable.clone();
        for effect in &file.effects {
            if effect.fate == Fate::Durable {
                effect.change.apply(&mut content);
                continue;
            }
            match luck(effect.number, Some(&effect.change)) {
                Luck::Kept => effect.change.apply(&mut content),
                Luck::Lost => {}
                Luck::Torn { sectors, size } => {
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

/// Sectors that a change touches; only writes can be torn.
fn sector_count(change: &Data) -> u64 {
    match change {
        Data::Write { offset, bytes } => {
            let end = offset + bytes.len() as u64;
            end.div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES
        }
        Data::SetLen(_) | Data::Grow(_) => 0,
    }
}

/// A random part of a change; what is not a write is there.
fn tear(change: &Data, prng: &mut Prng) -> Luck {
    match sector_count(change) {
        0 => Luck::Kept,
        count => {
            let sectors = (0..count).filter(|_| prng.percent(50)).collect();
            Luck::Torn {
                sectors,
                size: prng.percent(50),
            }
        }
    }
}

/// The parts of a write that fall into `sectors`.
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
