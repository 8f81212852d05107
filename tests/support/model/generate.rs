//! Histories generated from a seed.
//!
//! Owns: [`History`] and [`generate`]. A history is data, so that it can be printed, measured (`census`) and shrunk.
//!
//! The universe is small on purpose: a few names that all clients change find more errors than many names of single
//! clients.

use std::time::Duration;

use tonnage_engine::{Options, UntaggedPolicy};

use super::content::{
    self, COMMON_SIZES, Contents, REPOSITORIES, ROOMY_THRESHOLD, SIZES, THRESHOLD, WITNESS,
};
use super::operation::{Call, How, Operation, many_tag};
use crate::machine::{EDQUOT, EINTR, EIO, ENOSPC, Fault, OpKind, Prng};

/// Some waits of histories are longer.
const GRACE: Duration = Duration::from_mins(10);
const TAGS: [&str; 3] = ["latest", "v1", "a-tag"];
const CHANGE_WEIGHTS: [(u32, Kind); 16] = [
    (20, Kind::Push),
    (16, Kind::Manifest),
    (6, Kind::Referrer),
    (6, Kind::Tag),
    (8, Kind::Swap),
    (4, Kind::Untag),
    (6, Kind::DeleteManifest),
    (4, Kind::Unlink),
    (5, Kind::Mount),
    (6, Kind::Leave),
    (6, Kind::Resume),
    (2, Kind::Cancel),
    (6, Kind::Head),
    (10, Kind::Read),
    (5, Kind::Checkpoint),
    (6, Kind::Collect),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Push,
    Manifest,
    Referrer,
    Tag,
    Swap,
    Untag,
    DeleteManifest,
    DeleteRepository,
    Unlink,
    Mount,
    Leave,
    Resume,
    Cancel,
    Head,
    Read,
    Checkpoint,
    Collect,
}

/// The lives of a store, one after the other, on one disk.
#[derive(Debug, Clone)]
pub struct History {
    /// Its seed, also for the order of tasks, completions and losses.
    pub seed: u64,
    /// Whether two contents fill a shared segment, with a threshold of half a segment.
    pub roomy: bool,
    /// Whether checkpoints start by themselves.
    pub tight: bool,
    /// Whether the reserve is too small for a journal file.
    pub poor: bool,
    /// The lives, each from an open to the next stop.
    pub lives: Vec<Life>,
}

/// A life: from an open to a stop.
#[derive(Debug, Clone)]
pub struct Life {
    /// The calls of each client; clients run concurrently.
    pub clients: Vec<Vec<Call>>,
    /// Whether the store is closed at the end; else the power is cut.
    pub closed: bool,
    /// The faults meanwhile.
    pub faults: Vec<Fault>,
    /// The bytes that the disk has left, for a while.
    pub room: Option<u64>,
    /// Operations stall, and transfers are short.
    pub slow: bool,
    /// The life ends with a manifest of very many tags.
    pub crowded: bool,
}

impl Life {
    /// Returns whether an error is an allowed answer.
    pub fn is_faulty(&self) -> bool {
        !self.faults.is_empty() || self.room.is_some()
    }
}

impl History {
    /// Returns the options of its store.
    pub fn options(&self) -> Options {
        let mut options = if self.roomy {
            roomy_options()
        } else {
            options()
        };
        options.untagged =
            UntaggedPolicy::new(|repository| removes_untagged(repository).then_some(GRACE));
        if self.tight {
            options.delta_budget_bytes = 64 << 10;
        }
        if self.seed % 8 == 6 {
            options.uploads_max = 2 + (self.seed / 8 % 3) as usize; // some are evicted
        }
        if self.poor {
            options.reserve_bytes = 4 << 10;
        } else if self.seed % 4 == 1 {
            options.reserve_bytes = 256 << 10; // an open on a full disk uses a part of it
        }
        if self.seed % 8 == 7 {
            options.free_space_min_bytes = Some(64 << 10); // some pushes are refused early
        }
        options
    }

    /// Returns the calls of all lives.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.lives
            .iter()
            .flat_map(|life| life.clients.iter().flatten())
    }
}

/// Returns options of a store so small that every boundary is crossed: journal files roll, windows fill, uploads spill
/// and checkpoint.
pub fn options() -> Options {
    Options {
        spill_threshold_bytes: THRESHOLD as u64,
        staging_budget_bytes: 1 << 20,
        shared_segment_bytes: 1 << 20,
        upload_checkpoint_bytes: 64 << 10,
        unsynced_bytes_max: 128 << 10,
        upload_window_bytes: 64 << 10,
        journal_file_bytes: 32 << 10,
        collection_grace: GRACE,
        // Histories collect by a call, so that the model knows when.
        collection_manual: true,
        // Most tests fill the disk to its end.
        free_space_min_bytes: Some(0),
        // They scrub by a call, too.
        scrub_bytes_per_second: 0,
        reserve_bytes: 64 << 10,
        ..Options::default()
    }
}

/// Returns whether the policy of histories removes untagged manifests of a repository.
pub fn removes_untagged(repository: &str) -> bool {
    repository == REPOSITORIES[0]
}

/// Returns the same with a threshold so high that two blobs fill a shared segment.
pub fn roomy_options() -> Options {
    Options {
        spill_threshold_bytes: ROOMY_THRESHOLD as u64,
        ..options()
    }
}

/// Generates the history of a seed.
pub fn generate(seed: u64) -> History {
    Generator::new(seed).history()
}

struct Generator {
    prng: Prng,
    seed: u64,
    roomy: bool,
    poor: bool,
    /// Whether repositories are deleted.
    fleeting: bool,
    contents: Vec<u32>,
    manifests: Vec<u32>,
    repositories: usize,
    /// What was pushed and put so far, as if in sequence, so that most calls have a target.
    pushed: Vec<(usize, u32)>,
    put: Vec<(usize, u32)>,
}

impl Generator {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x6869_7374_6f72_7900);
        let roomy = seed % 16 == 5;
        let contents = contents(seed, roomy, &mut prng);
        let manifests = (0..3 + prng.below(3) as u32).map(|n| 100 + n).collect();
        let repositories = 1 + prng.below(REPOSITORIES.len());
        Self {
            prng,
            seed,
            roomy,
            poor: seed % 8 == 3,
            fleeting: matches!(seed % 8, 2 | 5) || seed % 32 == 8,
            contents,
            manifests,
            repositories,
            pushed: Vec::new(),
            put: Vec::new(),
        }
    }

    fn history(mut self) -> History {
        let tight = self.prng.percent(20) || self.poor;
        // An open on a full disk needs an earlier life.
        let count = if self.seed % 8 == 1 { 3 } else { 1 } + self.prng.below(3);
        let mut lives: Vec<Life> = (0..count).map(|number| self.life(number)).collect();
        if self.seed % 32 == 8 {
            self.crowd(&mut lives);
        }
        History {
            seed: self.seed,
            roomy: self.roomy,
            tight,
            poor: self.poor,
            lives,
        }
    }

    /// Adds a frame larger than a journal file, and more rows than one write of a checkpoint takes. It comes near the
    /// end, because every later image contains all of them.
    fn crowd(&mut self, lives: &mut [Life]) {
        let (Some(life), Some((repository, number))) = (lives.last_mut(), self.put.last().copied())
        else {
            return;
        };
        life.crowded = true;
        let tag_many = Operation::TagMany {
            count: 1600,
            number,
        };
        // Another client may have deleted the manifest.
        let again = Operation::Manifest {
            number,
            children: Vec::new(),
            manifests: Vec::new(),
            subject: None,
            tag: None,
        };
        // More tags than one step removes: they are gone at once, and the same manifest returns without them.
        let delete = Operation::DeleteManifest(number);
        let back = again.clone();
        let tag_one = Operation::Tag {
            tag: many_tag(7),
            number,
            old: Some(None),
        };
        let all = [
            again,
            tag_many,
            Operation::Checkpoint,
            delete,
            back,
            tag_one,
        ];
        for operation in all {
            life.clients[0].push(Call {
                repository: REPOSITORIES[repository].to_owned(),
                operation,
            });
        }
    }

    fn life(&mut self, number: usize) -> Life {
        let clients = 1 + self.prng.below(3);
        let mut calls = if number == 0 { 6 } else { 2 } + self.prng.below(6);
        if self.seed % 8 == 5 || self.prng.percent(12) {
            calls += 14; // several journal files
        }
        let mut scripts = vec![Vec::new(); clients];
        for _ in 0..calls {
            for script in &mut scripts {
                let call = self.call();
                script.push(call);
            }
        }
        let (mut faults, mut room) = (Vec::new(), None);
        // Every other history has a disk without faults.
        if self.seed % 2 == 1 && self.prng.percent(85) {
            let full = if self.seed % 8 == 1 { 3 } else { 1 };
            if self.prng.below(5) < full {
                room = Some(self.room());
            } else {
                faults.push(self.fault());
            }
        }
        Life {
            clients: scripts,
            closed: self.prng.percent(50),
            faults,
            room,
            slow: self.prng.percent(25),
            crowded: false,
        }
    }

    /// Returns the free bytes: for some data, or for hardly a journal file.
    fn room(&mut self) -> u64 {
        if self.seed % 8 == 1 {
            return self.prng.below(8000) as u64;
        }
        let bound = if self.poor || self.prng.percent(50) {
            40_000
        } else {
            300_000
        };
        self.prng.below(bound) as u64
    }

    fn fault(&mut self) -> Fault {
        use OpKind::{Create, Read, SetLen, SyncData, SyncDir, Unlink, Write};
        // Operations whose failure must cost neither too little nor too much; an empty path means any.
        let places = [
            (SyncData, ".journal"),
            (SyncData, ".journal"),
            (SyncData, ".segment"),
            (SyncData, ""),
            (SyncDir, "segments"),
            (SyncDir, "journal"),
            (SyncDir, ""),
            (Write, ".journal"),
            (Write, ".segment"),
            (Write, ".upload"),
            (Write, ".run"),
            (SyncData, ".run"),
            (SyncData, ".run"),
            (Write, ""),
            (Create, ".journal"),
            (Create, ".journal"),
            (Create, ".segment"),
            (Create, ""),
            (SetLen, ""),
            (Unlink, ""),
            (Read, ".run"),
            (Read, ".segment"),
            (Read, ""),
        ];
        let codes = [EIO, EIO, ENOSPC, EDQUOT, EINTR];
        let (kind, place) = places[self.prng.below(places.len())];
        let code = codes[self.prng.below(codes.len())];
        // Failures that are too rare by chance; each has histories of its own.
        match self.seed % 8 {
            // Checkpoints of this store start by themselves, and fail half-way, over and over.
            3 if self.prng.percent(75) => {
                let kind = [Write, SyncData][self.prng.below(2)];
                return Fault::percent(kind, 50).on(".run").with_errno(code);
            }
            // Sometimes there is no space for a journal file: queued commits are rejected, and the store continues.
            5 if self.prng.percent(75) => {
                return Fault::percent(Create, 60).on(".journal").with_errno(ENOSPC);
            }
            // A sync of the journal fails, on which everything depends.
            7 if self.prng.percent(70) => {
                return Fault::nth(SyncData, 1 + self.prng.below(4) as u64).on(".journal");
            }
            _ => {}
        }
        let fault = if self.prng.percent(70) {
            Fault::nth(kind, 1 + self.prng.below(6) as u64)
        } else {
            Fault::percent(kind, 3 + self.prng.below(8) as u8)
        };
        let fault = fault.on(place).with_errno(code);
        if kind == Read && self.prng.percent(50) {
            fault.flipping()
        } else {
            fault
        }
    }

    fn call(&mut self) -> Call {
        let repository = self.prng.below(self.repositories);
        let kind = self.kind();
        let operation = self.operation(kind, repository);
        Call {
            repository: REPOSITORIES[repository].to_owned(),
            operation,
        }
    }

    fn kind(&mut self) -> Kind {
        if self.fleeting && !self.pushed.is_empty() && self.prng.percent(12) {
            return Kind::DeleteRepository;
        }
        let total: u32 = CHANGE_WEIGHTS.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.prng.below(total as usize) as u32;
        for (weight, kind) in CHANGE_WEIGHTS {
            if drawn < weight {
                return kind;
            }
            drawn -= weight;
        }
        unreachable!("less than the sum of the weights was drawn")
    }

    fn operation(&mut self, kind: Kind, repository: usize) -> Operation {
        match kind {
            Kind::Push => {
                let content = self.content();
                self.pushed.push((repository, content));
                let how = How {
                    announced: self.prng.percent(40),
                    wrong_digest: self.prng.percent(8),
                    rolled_back: self.prng.percent(20),
                    // Not drawn, so that the histories of all seeds stay the same.
                    taken_over: content % 4 == 1,
                };
                Operation::Push { content, how }
            }
            Kind::Manifest | Kind::Referrer => {
                let number = self.manifest();
                let subject = match kind {
                    Kind::Referrer => Some(self.manifest()),
                    _ => None,
                };
                let count = self.prng.below(4);
                let mut children: Vec<u32> =
                    (0..count).map(|_| self.pushed_to(repository)).collect();
                children.sort_unstable();
                children.dedup();
                let manifests = self.listed(number, subject);
                self.put.push((repository, number));
                Operation::Manifest {
                    number,
                    children,
                    manifests,
                    subject,
                    tag: self.prng.percent(60).then(|| self.tag()),
                }
            }
            Kind::Tag => Operation::Tag {
                tag: self.tag(),
                number: self.put_to(repository),
                old: None,
            },
            Kind::Swap => {
                let old = self.prng.percent(60).then(|| self.put_to(repository));
                Operation::Tag {
                    tag: self.tag(),
                    number: self.put_to(repository),
                    old: Some(old),
                }
            }
            Kind::Untag => Operation::Untag(self.tag()),
            Kind::DeleteManifest => Operation::DeleteManifest(self.put_to(repository)),
            Kind::DeleteRepository => Operation::DeleteRepository,
            Kind::Unlink => Operation::Unlink(self.pushed_to(repository)),
            Kind::Mount => {
                let from = self.prng.below(self.repositories);
                Operation::Mount {
                    content: self.pushed_to(from),
                    from: REPOSITORIES[from].to_owned(),
                }
            }
            Kind::Leave => Operation::Leave {
                content: self.content(),
                percent: [50, 90, 100, 30][self.prng.below(4)],
            },
            Kind::Resume => Operation::Resume,
            Kind::Cancel => Operation::Cancel,
            Kind::Head => Operation::Head(self.pushed_to(repository)),
            Kind::Read => {
                let (from, to) = [(0, 100), (0, 50), (50, 100), (33, 66)][self.prng.below(4)];
                Operation::Read(self.pushed_to(repository), from, to)
            }
            Kind::Collect => Operation::Collect(Vec::new()),
            Kind::Checkpoint if self.prng.percent(70) => Operation::Checkpoint,
            Kind::Checkpoint => match self.prng.below(3) {
                0 => Operation::Scrub(repository == 0),
                1 => Operation::Wait(Duration::from_mins(20)),
                _ => Operation::Wait(Duration::from_mins(50)),
            },
        }
    }

    /// Returns the manifests that a manifest lists: its own subject, or one that may list that. Not drawn, so that the
    /// histories of all seeds stay the same.
    fn listed(&self, number: u32, subject: Option<u32>) -> Vec<u32> {
        let count = self.manifests.len() as u32;
        let following = 100 + (number - 100 + 1) % count;
        match subject {
            Some(subject) if subject == number => Vec::new(),
            Some(subject) if (number + subject).is_multiple_of(2) => vec![subject],
            Some(_) => vec![following],
            None if self.put.len().is_multiple_of(2) => vec![following],
            None => Vec::new(),
        }
    }

    fn content(&mut self) -> u32 {
        self.contents[self.prng.below(self.contents.len())]
    }

    fn manifest(&mut self) -> u32 {
        self.manifests[self.prng.below(self.manifests.len())]
    }

    fn tag(&mut self) -> String {
        TAGS[self.prng.below(TAGS.len())].to_owned()
    }

    /// Returns a content that was pushed to this repository, in most cases.
    fn pushed_to(&mut self, repository: usize) -> u32 {
        let there: Vec<u32> = matching(&self.pushed, repository);
        if there.is_empty() || self.prng.percent(5) {
            return self.content();
        }
        there[self.prng.below(there.len())]
    }

    fn put_to(&mut self, repository: usize) -> u32 {
        let there: Vec<u32> = matching(&self.put, repository);
        if there.is_empty() || self.prng.percent(5) {
            return self.manifest();
        }
        there[self.prng.below(there.len())]
    }
}

fn matching(of: &[(usize, u32)], repository: usize) -> Vec<u32> {
    let there = of.iter().filter(|(at, _)| *at == repository);
    there.map(|(_, number)| *number).collect()
}

/// Returns the contents of a history: sizes in turn over the seeds, so that each occurs, and some at random.
fn contents(seed: u64, roomy: bool, prng: &mut Prng) -> Vec<u32> {
    let turn = |n: u64| (n % COMMON_SIZES as u64) as u32;
    let mut chosen: Vec<u32> = (0..3).map(|n| turn(seed * 3 + n)).collect();
    chosen.extend((0..3).map(|_| turn(prng.next_u64())));
    if roomy {
        let large = SIZES.len() - COMMON_SIZES;
        let at = |n: usize| (COMMON_SIZES + n % large) as u32;
        let shift = (seed / 16) as usize % 3;
        // One of each half of a segment, each ± 1 in turn, and one around the threshold.
        chosen = vec![at(shift), at(3 + shift), at(1), at(4), at(6 + shift), 1];
    }
    // The same size with other bytes, under each algorithm.
    let salt = |number: u32, prng: &mut Prng| number + SIZES.len() as u32 * prng.below(3) as u32;
    let mut contents: Vec<u32> = chosen.into_iter().map(|n| salt(n, prng)).collect();
    contents.sort_unstable();
    contents.dedup();
    contents
}

/// Returns everything that a history may store.
pub fn universe(history: &History) -> Contents {
    let blob = |number| (content::digest(number), content::bytes(number));
    let manifest = |number| (content::manifest_digest(number), content::manifest(number));
    let mut contents = Contents::from([blob(WITNESS)]);
    for call in history.calls() {
        match &call.operation {
            Operation::Push { content, .. }
            | Operation::Leave { content, .. }
            | Operation::Mount { content, .. } => {
                contents.extend([blob(*content)]);
            }
            Operation::Manifest { number, .. } => {
                contents.extend([manifest(*number)]);
            }
            _ => {}
        }
    }
    contents
}
