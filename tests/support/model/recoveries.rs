//! The images that come up in one life: each recovered once, and noted each time, with when that was.
//!
//! Owns: [`Recoveries`], [`Occurrence`]; which openings are themselves stopped everywhere, and what is asked of those. Refuses: what a
//! first stop must have kept (the `judge` module), and when there is one (`sweep`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tonnage_engine::{Error, Store};

use super::census::Census;
use super::content::{REPOSITORIES, WITNESS};
use super::damage;
use super::drive::{Client, IDLE_UPLOAD};
use super::judge::Timeline;
use super::operation::{Call, How, Operation};
use super::record::{Answer, Moment, Shared};
use super::recover::{Found, Task, Violation, guarded, has_store, recover, store_path};
use crate::machine::{CrashImage, Fault, Image, Killed, Machine, OpKind, Policy, Prng, Stray};

/// Of distinct images, one in so many has its opening stopped everywhere, too.
const CUT_EVERY: usize = 24;

/// Less than this has a disk that is full.
const CRAMPED_BYTES: usize = 8000;

/// An image that came up, and when.
#[derive(Debug)]
pub struct Occurrence {
    /// Crash points before the first stop.
    pub points: u64,
    /// How it came to be.
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
    /// Its image, of this hash, was being opened when the power went again.
    Opening(u64),
    /// Only the process was killed; the next one saw all that the page cache had, an image of this hash, and then the power went.
    Kill {
        seen: u64,
        /// How far that one had come by then.
        progress: Progress,
    },
}

/// How far the process after a kill had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// Nobody has seen anything of what it found.
    Opening,
    /// What readers see is promised.
    Opened,
    /// So is what was acknowledged since: [`witness`].
    Acknowledged,
}

/// The check that the process after a first stop can do its work.
const DUTY: &str = "duty";

/// What the disk does to the process after a kill, now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    Sound,
    /// It is full but for less than a journal file.
    Full,
    /// Files of checkpoints cannot be written, half of the time.
    FailingBase,
}

/// A push after a kill: whoever loses something at the next stop does not get away with having had nothing to lose.
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
    /// What to look for.
    pub task: Task,
    /// What was noted.
    pub occurrences: Vec<Occurrence>,
    /// Counts.
    pub census: Census,
    /// The first thing that is wrong with anything but an image that was recovered, and when.
    pub beside: Option<(String, Violation)>,
    record: Shared,
    policy: fn(u64) -> Policy,
    trouble: Trouble,
    known: HashMap<u64, Result<Arc<Found>, Violation>>,
    /// An image was not what it may be: that is enough, what comes later is not looked at.
    broken: bool,
    cut: usize,
}

impl Recoveries {
    /// None yet.
    pub fn new(task: Task, record: Shared, policy: fn(u64) -> Policy, trouble: Trouble) -> Self {
        Self {
            task,
            occurrences: Vec::new(),
            census: Census::default(),
            beside: None,
            record,
            policy,
            trouble,
            known: HashMap::new(),
            broken: false,
            cut: 0,
        }
    }

    /// What was found in the image of this hash.
    pub fn known(&self, hash: u64) -> Option<&Result<Arc<Found>, Violation>> {
        self.known.get(&hash)
    }

    /// Recovers what a stop may leave.
    pub fn take_in(&mut self, points: u64, images: Vec<CrashImage>) {
        for crash in images {
            if self.note(points, &crash, After::Nothing) && has_store(&crash.image) {
                self.cut += 1;
                if self.cut.is_multiple_of(CUT_EVERY) {
                    self.cut_opening(points, &crash);
                }
            }
        }
    }

    /// Notes an image, and recovers it if it is new.
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

    /// Looks at what is left where unsynced writes went astray.
    pub fn look_astray(&mut self, points: u64, strays: Vec<Stray>) {
        for stray in strays {
            let hash = stray.without.hash;
            self.take_in(points, vec![stray.without.clone()]);
            let Some(Ok(found)) = self.known.get(&hash) else {
                continue; // that image itself is judged
            };
            let found = Arc::clone(found);
            if !has_store(&stray.image) {
                continue;
            }
            let looked = damage::astray(&self.task, &stray, &found, &mut self.census);
            if let Err(violation) = looked {
                self.complain(
                    format!("a write astray after crash point {points}"),
                    violation,
                );
            }
        }
    }

    fn complain(&mut self, stop: String, violation: Violation) {
        self.beside.get_or_insert((stop, violation));
    }

    /// Stops the opening of an image everywhere in turn.
    fn cut_opening(&mut self, points: u64, crash: &CrashImage) {
        let machine = Machine::new(self.task.seed ^ 0xc7, &crash.image);
        let second = self.second_life(&machine, false);
        self.census.cut_openings += 1;
        let parent = crash.hash;
        let duty = if second.opened.is_ok() {
            second.ran
        } else {
            Ok(()) // the judgement of the image itself tells of it
        };
        self.take_in_second(points, &crash.label, second.stops, |_| {
            After::Opening(parent)
        });
        if let Err(violation) = duty {
            self.complain(
                format!("opened after crash point {points}, {:?}", crash.label),
                violation,
            );
        }
    }

    /// Ends the process at this stop and nothing else: the next one opens what the page cache shows, and the power goes at each of
    /// its own stops in turn.
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
        let trouble = self.make_trouble(points, &machine);
        let second = self.second_life(&machine, true);
        self.census.killed += 1;
        let seen = crash.hash;
        let after = |progress| After::Kill { seen, progress };
        self.take_in_second(points, &crash.label, second.stops, after);
        let excused = match trouble {
            Trouble::Sound => false,
            Trouble::Full => second.opened.as_ref().err().is_none_or(Error::is_no_space),
            Trouble::FailingBase => second.progress == Progress::Acknowledged, // the close needs a checkpoint
        };
        if let Err(violation) = second.ran
            && !(excused && violation.check == DUTY)
        {
            let stop = format!("the next process after a kill at crash point {points}");
            self.complain(stop, violation);
        }
    }

    /// Breaks the disk now and then, and says how.
    fn make_trouble(&self, points: u64, machine: &Machine) -> Trouble {
        let mut prng = Prng::new(self.task.seed ^ points);
        if prng.percent(50) {
            return Trouble::Sound;
        }
        match self.trouble {
            Trouble::Sound => {}
            Trouble::Full => {
                let room = prng.below(CRAMPED_BYTES) as u64;
                let used = machine.disk.used_bytes();
                machine.disk.set_capacity(Some(used + room));
            }
            Trouble::FailingBase => {
                let kind = [OpKind::Write, OpKind::SyncData][prng.below(2)];
                machine.disk.add_fault(Fault::percent(kind, 50).on(".run"));
            }
        }
        self.trouble
    }

    /// An open, a push and a close, with the images at every stop.
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
                    // Uploads that were resumed may have all places; they make room once they are idle.
                    env.clock.sleep(IDLE_UPLOAD).await;
                    let record = Shared::default();
                    let client = Client::new(0, store.clone(), env, record.clone(), grace, vec![]);
                    client.run(vec![witness()]).await;
                    let record = record.0.lock();
                    if let Some((check, what)) = record.complaints.first() {
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

    fn take_in_second(
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

    /// Is this image what it may be?
    pub fn judge(&self, occurrence: &Occurrence, timeline: &Timeline<'_>) -> Result<(), Violation> {
        let found = self.known[&occurrence.hash]
            .as_ref()
            .map_err(Clone::clone)?;
        let (before, progress) = match occurrence.after {
            After::Nothing => {
                no_torn_checkpoint(found)?;
                return timeline.judge(found, occurrence.moment);
            }
            After::Opening(parent) => (parent, None),
            After::Kill { seen, progress } => (seen, Some(progress)),
        };
        // Two processes may each have left a checkpoint that the power tore, and a close overwrites one of them: the other waits for its
        // turn, a cache that nobody uses.
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
            let what = "the model refuses what was pushed after a kill";
            return Err(Violation::new("recovery cut off", what));
        }
        let unchanged = found.model == before.model && progress != Some(Progress::Acknowledged);
        // Pushed, and answered or not.
        let pushed = found.model == expected && progress >= Some(Progress::Opened);
        // LSNs go on behind those of the first stop: what counts is that nothing else changed.
        if unchanged || pushed {
            return timeline.judge_uploads(found, occurrence.moment);
        }
        if progress == Some(Progress::Opening) {
            // Nobody saw what the killed process had not made durable.
            return timeline.judge(found, occurrence.moment);
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
        let what = "fsck finds a checkpoint that does not hold after a clean stop";
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

/// A stop of it.
struct SecondStop {
    points: u64,
    progress: Progress,
    images: Vec<CrashImage>,
}
