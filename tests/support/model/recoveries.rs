//! The images of one life: each is recovered once, and recorded with its time whenever it occurs.
//!
//! Owns: [`Recoveries`], [`Occurrence`]; which opens are themselves stopped everywhere, and the checks of those.
//! Refuses: what a first stop must have kept (`timeline`), and when there is one (`sweep`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tonnage_engine::{Error, Store};

use super::census::Census;
use super::content::{REPOSITORIES, WITNESS};
use super::damage;
use super::drive::{Client, IDLE_UPLOAD};
use super::operation::{Call, How, Operation};
use super::record::{Answer, Moment, Shared};
use super::recover::{Found, Task, Violation, guarded, has_store, recover, store_path};
use super::timeline::Timeline;
use crate::machine::{
    CrashImage, Fault, Image, Killed, Machine, MisdirectedWrite, OpKind, Policy, Prng,
};

/// Of distinct images, one in this many has its open stopped everywhere too.
const CUT_EVERY: usize = 24;

/// A full disk has less space than this.
const CRAMPED_BYTES: usize = 8000;

/// An image that occurred, and when.
#[derive(Debug)]
pub struct Occurrence {
    /// The number of crash points before the first stop.
    pub points: u64,
    /// How it was produced.
    pub label: String,
    hash: u64,
    moment: Moment,
    after: After,
}

/// What happened between the first stop and this image.
#[derive(Debug, Clone, Copy)]
enum After {
    /// Nothing: it is what the stop left.
    Nothing,
    /// The image of this hash was being opened when the power was cut again.
    Opening(u64),
    /// Only the process was killed. The next process saw all of the page cache, an image of this hash, and then the
    /// power was cut.
    Kill {
        seen: u64,
        /// The progress of that process.
        progress: Progress,
    },
}

/// The progress of the process after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// No client has seen any state.
    Opening,
    /// What readers see is promised.
    Opened,
    /// What was acknowledged since, [`witness`], is promised too.
    Acknowledged,
}

/// The check that the process after a first stop can do its work.
const DUTY: &str = "duty";

/// The condition of the disk for the process after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskCondition {
    /// No fault.
    Sound,
    /// It is full except for less than a journal file.
    Full,
    /// Half of the writes to checkpoint files fail.
    FailingBase,
}

/// Returns a push for the time after a kill, so that a lost transaction is noticed at the next stop.
fn witness() -> Call {
    let how = How::default();
    Call {
        repository: REPOSITORIES[0].to_owned(),
        operation: Operation::Push {
            content: WITNESS,
            how,
        },
    }
}

/// Everything recovered so far in this life.
#[derive(Debug)]
pub struct Recoveries {
    /// The expected content.
    pub task: Task,
    /// The recorded images.
    pub occurrences: Vec<Occurrence>,
    /// Counts.
    pub census: Census,
    /// The first violation outside recovered images, and its stop.
    pub beside: Option<(String, Violation)>,
    record: Shared,
    policy: fn(u64) -> Policy,
    condition: DiskCondition,
    known: HashMap<u64, Result<Arc<Found>, Violation>>,
    /// An image was wrong; later ones are skipped.
    broken: bool,
    cut: usize,
}

impl Recoveries {
    /// Creates an empty record.
    pub fn new(
        task: Task,
        record: Shared,
        policy: fn(u64) -> Policy,
        condition: DiskCondition,
    ) -> Self {
        Self {
            task,
            occurrences: Vec::new(),
            census: Census::default(),
            beside: None,
            record,
            policy,
            condition,
            known: HashMap::new(),
            broken: false,
            cut: 0,
        }
    }

    /// Returns the result of recovering the image of this hash.
    pub fn known(&self, hash: u64) -> Option<&Result<Arc<Found>, Violation>> {
        self.known.get(&hash)
    }

    /// Recovers images that a stop may leave.
    pub fn add(&mut self, points: u64, images: Vec<CrashImage>) {
        for crash in images {
            if self.note(points, &crash, After::Nothing) && has_store(&crash.image) {
                self.cut += 1;
                if self.cut.is_multiple_of(CUT_EVERY) {
                    self.cut_opening(points, &crash);
                }
            }
        }
    }

    /// Records an image, and recovers it if it is new.
    fn note(&mut self, points: u64, crash: &CrashImage, after: After) -> bool {
        if self.broken {
            return false;
        }
        self.census.images += 1;
        let new = !self.known.contains_key(&crash.hash);
        if new {
            self.recover(crash.hash, &crash.image);
        }
        self.occurrences.push(Occurrence {
            points,
            label: crash.label.clone(),
            hash: crash.hash,
            moment: self.record.now(),
            after,
        });
        new
    }

    fn recover(&mut self, hash: u64, image: &Image) {
        self.task.uploads = self.record.0.lock().uploads.clone();
        let found = recover(&self.task, image);
        self.census.recoveries += 1;
        self.census.distinct += u64::from(has_store(image));
        if let Ok(found) = &found {
            self.census.note_open(&found.report, found.uploads.len());
        }
        self.broken = found.is_err();
        self.known.insert(hash, found.map(Arc::new));
    }

    /// Checks stores in which unsynced writes were misdirected.
    pub fn check_misdirected(&mut self, points: u64, strays: Vec<MisdirectedWrite>) {
        for stray in strays {
            let hash = stray.without.hash;
            self.add(points, vec![stray.without.clone()]);
            let Some(Ok(found)) = self.known.get(&hash) else {
                continue; // that image itself is checked
            };
            let found = Arc::clone(found);
            if !has_store(&stray.image) {
                continue;
            }
            let looked = damage::check_misdirected(&self.task, &stray, &found, &mut self.census);
            if let Err(violation) = looked {
                self.add_violation(
                    format!("a misdirected write after crash point {points}"),
                    violation,
                );
            }
        }
    }

    fn add_violation(&mut self, stop: String, violation: Violation) {
        self.beside.get_or_insert((stop, violation));
    }

    /// Stops the open of an image at every point in turn.
    fn cut_opening(&mut self, points: u64, crash: &CrashImage) {
        let machine = Machine::new(self.task.seed ^ 0xc7, &crash.image);
        let second = self.second_life(&machine, false);
        self.census.cut_openings += 1;
        let parent = crash.hash;
        let duty = if second.opened.is_ok() {
            second.ran
        } else {
            Ok(()) // the check of the image itself reports it
        };
        self.add_second(points, &crash.label, second.stops, |_| {
            After::Opening(parent)
        });
        if let Err(violation) = duty {
            self.add_violation(
                format!("opened after crash point {points}, {:?}", crash.label),
                violation,
            );
        }
    }

    /// Kills only the process at this stop. The next process opens what the page cache has, and the power is cut at
    /// each of its own stops in turn.
    pub fn kill(&mut self, points: u64, killed: Killed) {
        if self.broken {
            return;
        }
        let image = killed.live_image();
        let crash = CrashImage {
            label: "killed".to_owned(),
            hash: image.stable_hash(),
            image,
        };
        self.note(points, &crash, After::Nothing);
        let machine = Machine::after_kill(self.task.seed ^ 0x6b, killed);
        let condition = self.degrade_disk(points, &machine);
        let second = self.second_life(&machine, true);
        self.census.killed += 1;
        let seen = crash.hash;
        let after = |progress| After::Kill { seen, progress };
        self.add_second(points, &crash.label, second.stops, after);
        let excused = match condition {
            DiskCondition::Sound => false,
            DiskCondition::Full => second.opened.as_ref().err().is_none_or(Error::is_no_space),
            DiskCondition::FailingBase => second.progress == Progress::Acknowledged, // the close needs a checkpoint
        };
        if let Err(violation) = second.ran
            && !(excused && violation.check == DUTY)
        {
            let stop = format!("the next process after a kill at crash point {points}");
            self.add_violation(stop, violation);
        }
    }

    /// Puts the disk into a faulty condition now and then. Returns the condition.
    fn degrade_disk(&self, points: u64, machine: &Machine) -> DiskCondition {
        let mut prng = Prng::new(self.task.seed ^ points);
        if prng.percent(50) {
            return DiskCondition::Sound;
        }
        match self.condition {
            DiskCondition::Sound => {}
            DiskCondition::Full => {
                let room = prng.below(CRAMPED_BYTES) as u64;
                let used = machine.disk.used_bytes();
                machine.disk.set_capacity(Some(used + room));
            }
            DiskCondition::FailingBase => {
                let kind = [OpKind::Write, OpKind::SyncData][prng.below(2)];
                machine.disk.add_fault(Fault::percent(kind, 50).on(".run"));
            }
        }
        self.condition
    }

    /// Runs an open, a push and a close, and collects the images at every stop.
    fn second_life(&self, machine: &Machine, push: bool) -> SecondLife {
        let stops = Arc::new(Mutex::new(Vec::new()));
        let progress = Arc::new(Mutex::new(Progress::Opening));
        let (seen, reached) = (Arc::clone(&stops), Arc::clone(&progress));
        let (seed, policy) = (self.task.seed, self.policy);
        machine.disk.watch(move |stop| {
            seen.lock().push(SecondStop {
                points: stop.points,
                progress: *reached.lock(),
                images: stop.images(&policy(seed ^ stop.points)),
            });
        });
        let (env, options) = (machine.env.clone(), self.task.options.clone());
        let grace = options.collection_grace;
        let mut opened = Ok(());
        let ran = guarded("panic after a first stop", || {
            machine.executor.block_on(async {
                let store = match Store::open(env.clone(), &store_path(), options).await {
                    Ok((store, _)) => store,
                    Err(error) => {
                        let what = format!("the open: {error}");
                        opened = Err(error);
                        return Err(Violation::new(DUTY, what));
                    }
                };
                *progress.lock() = Progress::Opened;
                if push {
                    // Resumed uploads may use all places; they are evicted once they are idle.
                    env.clock.sleep(IDLE_UPLOAD).await;
                    let record = Shared::default();
                    let client = Client::new(0, store.clone(), env, record.clone(), grace, vec![]);
                    client.run(vec![witness()]).await;
                    let record = record.0.lock();
                    if let Some((check, what)) = record.violations.first() {
                        return Err(Violation::new(check, what.clone()));
                    }
                    let answer = record
                        .entries
                        .first()
                        .and_then(|entry| entry.answered.clone());
                    if !matches!(answer, Some((_, Answer::Committed(_)))) {
                        return Err(Violation::new(DUTY, format!("a push: {answer:?}")));
                    }
                    *progress.lock() = Progress::Acknowledged;
                }
                let closed = store.close().await;
                closed.map_err(|error| Violation::new(DUTY, format!("the close: {error}")))
            })
        });
        machine.disk.unwatch();
        SecondLife {
            stops: std::mem::take(&mut *stops.lock()),
            opened,
            progress: *progress.lock(),
            ran,
        }
    }

    fn add_second(
        &mut self,
        points: u64,
        label: &str,
        stops: Vec<SecondStop>,
        after: impl Fn(Progress) -> After,
    ) {
        for stop in stops {
            for mut crash in stop.images {
                crash.label = format!(
                    "{label}, the next process stopped after {}: {}",
                    stop.points, crash.label
                );
                self.note(points, &crash, after(stop.progress));
            }
        }
    }

    /// Checks whether this image is allowed.
    pub fn check(&self, occurrence: &Occurrence, timeline: &Timeline<'_>) -> Result<(), Violation> {
        let found = self.known[&occurrence.hash]
            .as_ref()
            .map_err(Clone::clone)?;
        let (before, progress) = match occurrence.after {
            After::Nothing => {
                no_torn_checkpoint(found)?;
                return timeline.check(found, occurrence.moment);
            }
            After::Opening(parent) => (parent, None),
            After::Kill { seen, progress } => (seen, Some(progress)),
        };
        // Each of two processes may have left a checkpoint that the power cut tore, and a close overwrites one of them.
        // The other stays until its turn, as an unused cache.
        if progress.is_none() {
            no_torn_checkpoint(found)?;
        }
        let before = self.known[&before].as_ref().map_err(Clone::clone)?;
        if progress >= Some(Progress::Opened) && found.lsn < before.lsn {
            let what = format!("LSN {} was seen, {} is the last", before.lsn, found.lsn);
            return Err(Violation::new("recovery cut off", what));
        }
        let mut expected = before.model.clone();
        if progress.is_some() && expected.apply(&witness()).is_err() {
            let what = "the model rejects what was pushed after a kill";
            return Err(Violation::new("recovery cut off", what));
        }
        let unchanged = found.model == before.model && progress != Some(Progress::Acknowledged);
        // Pushed, and answered or not.
        let pushed = found.model == expected && progress >= Some(Progress::Opened);
        // LSNs continue after those of the first stop; apart from that nothing may have changed.
        if unchanged || pushed {
            return timeline.check_uploads(found, occurrence.moment);
        }
        if progress == Some(Progress::Opening) {
            // No client saw what the killed process had not made durable.
            return timeline.check(found, occurrence.moment);
        }
        let what = format!(
            "{progress:?}:\n found    {:?}\n expected {:?}",
            found.model, before.model
        );
        Err(Violation::new("recovery cut off", what))
    }
}

fn no_torn_checkpoint(found: &Found) -> Result<(), Violation> {
    if found.torn_checkpoint {
        let what = "fsck finds an invalid checkpoint after a clean stop";
        return Err(Violation::new("clean stop", what));
    }
    Ok(())
}

/// The process after a first stop.
struct SecondLife {
    stops: Vec<SecondStop>,
    opened: Result<(), Error>,
    progress: Progress,
    /// What it failed to do.
    ran: Result<(), Violation>,
}

/// One of its stops.
struct SecondStop {
    points: u64,
    progress: Progress,
    images: Vec<CrashImage>,
}
