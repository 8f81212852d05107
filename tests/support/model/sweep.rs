//! One history on the simulated machine: every stop, every kind of image, every image recovered and judged.
//!
//! Owns: [`sweep`]. Each life runs once; before every write, sync and change of a name its disk shows the images that a stop there
//! may leave. An image is recovered once, however often it comes up, and judged each time: what may be in it depends on what was
//! answered by then. A life that ends without a close leaves one of its images to the next, whose opening is then stopped
//! everywhere in turn; so are openings of images picked on the way, and openings after a mere `kill -9`, on a page cache that the power
//! takes away later.

use std::sync::Arc;

use parking_lot::Mutex;
use tonnage_engine::Store;

use super::census::Census;
use super::damage;
use super::drive::{self, Left};
use super::generate::{self, History, Life};
use super::judge::Timeline;
use super::record::Shared;
use super::recover::{Task, Violation, empty_disk, guarded, has_store, store_path};
use super::recoveries::{Recoveries, Trouble};
use super::state::Model;
use crate::machine::places;
use crate::machine::{CrashImage, Image, Machine, Noise, Policy, Prng};

/// Of crash points, one in so many is a `kill -9`, too: the next process begins on the page cache.
const KILL_EVERY: u64 = 10;

/// Of crash points, one in so many has unsynced writes go astray, too.
const STRAY_EVERY: u64 = 8;
/// How many, each time.
const STRAYS: usize = 2;

/// How far a sweep goes.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Whether what the last stop leaves is damaged on purpose, too.
    pub damage: bool,
    /// Whether some stops only kill the process.
    pub kills: bool,
}

impl Default for Depth {
    fn default() -> Self {
        Self {
            damage: true,
            kills: true,
        }
    }
}

/// A violation and how to get there.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What does not hold.
    pub violation: Violation,
    /// Which life of the history, counted from 1.
    pub life: usize,
    /// Where it was stopped and what survived.
    pub stop: String,
    /// The last operations of the disk before that, newest last.
    pub log: String,
}

/// What a sweep did, and the first thing that it found wrong.
#[derive(Debug, Default)]
pub struct Swept {
    /// Counts.
    pub census: Census,
    /// The first violation.
    pub failure: Option<Failure>,
}

/// Runs a history and everything that may come of it.
pub fn sweep(history: &History, depth: Depth) -> Swept {
    let mut swept = Swept::default();
    drop(places::take_counts());
    swept.census.note_history(history);
    let mut carry = Carry {
        image: empty_disk(),
        model: Model::default(),
        lsn: 0,
        left: Vec::new(),
    };
    for (number, life) in history.lives.iter().enumerate() {
        let run = LifeRun {
            history,
            life,
            number,
            depth,
        };
        match run.run(&carry, &mut swept.census) {
            Ok(next) => carry = next,
            Err(failure) => {
                swept.failure = Some(*failure);
                break;
            }
        }
    }
    swept.census.note_places();
    swept
}

/// What one life leaves to the next.
struct Carry {
    image: Image,
    model: Model,
    lsn: u64,
    left: Vec<Left>,
}

struct LifeRun<'a> {
    history: &'a History,
    life: &'a Life,
    number: usize,
    depth: Depth,
}

impl LifeRun<'_> {
    fn seed(&self) -> u64 {
        self.history.seed ^ ((self.number as u64 + 1) << 56)
    }

    /// How many images a stop gives: fewer where judging one takes ten times as long.
    fn policy(&self) -> fn(u64) -> Policy {
        if self.life.crowded || self.history.roomy {
            Policy::thin
        } else {
            Policy::sparse
        }
    }

    fn run(&self, carry: &Carry, census: &mut Census) -> Result<Carry, Box<Failure>> {
        let record = Shared::default();
        let machine = Machine::new(self.seed(), &carry.image);
        machine.disk.set_noise(self.noise());
        let task = Task {
            seed: self.seed() ^ 0xfeed,
            options: self.history.options(),
            universe: generate::universe(self.history),
            uploads: std::collections::BTreeMap::new(),
        };
        let trouble = match self.history.seed % 4 {
            1 => Trouble::Full,
            3 => Trouble::FailingBase,
            _ => Trouble::Sound,
        };
        let policy = self.policy();
        let recoveries = Recoveries::new(task, record.clone(), policy, trouble);
        let recoveries = Arc::new(Mutex::new(recoveries));
        let (watching, seed) = (Arc::clone(&recoveries), self.seed());
        let Depth { damage, kills, .. } = self.depth;
        machine.disk.watch(move |stop| {
            let images = stop.images(&policy(seed ^ stop.points));
            let mut watching = watching.lock();
            watching.take_in(stop.points, images);
            if kills && stop.points % KILL_EVERY == seed % KILL_EVERY {
                watching.kill(stop.points, stop.killed());
            }
            if damage && stop.points.is_multiple_of(STRAY_EVERY) {
                let strays = stop.strays(seed ^ stop.points, STRAYS);
                watching.look_astray(stop.points, strays);
            }
        });
        let ran = guarded("panic", || Ok(self.live(&machine, &record, carry)));
        machine.disk.unwatch();
        let ended = match ran {
            Ok(ended) => ended,
            Err(violation) => {
                return Err(self.failure(&machine, violation, "while it ran".to_owned()));
            }
        };
        let closed = matches!(ended, Ended::Closed(_));
        let last = machine.disk.crash_images(&policy(seed ^ 0x1a57));
        let mut recoveries = recoveries.lock();
        recoveries.take_in(machine.disk.points(), last.clone());
        census.add(&recoveries.census);
        census.points += machine.disk.points();
        self.judge(carry, &record, &recoveries, &machine)?;
        if let Some((stop, violation)) = recoveries.beside.take() {
            return Err(self.failure(&machine, violation, stop));
        }
        let (image, hash) = self.pick(&last, closed);
        let found = match recoveries.known(hash) {
            Some(Ok(found)) => Arc::clone(found),
            _ => unreachable!("every image was recovered and judged"),
        };
        if self.depth.damage && has_store(&image) {
            let damaged = damage::check(&recoveries.task, &image, &found, closed, census);
            damaged.map_err(|violation| {
                self.failure(
                    &machine,
                    violation,
                    "damaged after the last stop".to_owned(),
                )
            })?;
        }
        let left = match ended {
            Ended::Closed(left) => self.certain(left, &record),
            Ended::Stopped(left) => left,
        };
        Ok(Carry {
            image,
            model: found.model.clone(),
            lsn: found.lsn,
            left,
        })
    }

    /// From the open to the stop.
    fn live(&self, machine: &Machine, record: &Shared, carry: &Carry) -> Ended {
        let options = self.history.options();
        let grace = options.collection_grace;
        let faulty = self.life.is_faulty();
        machine.executor.block_on(async {
            // The next openings meet the full disk already, the first one has nothing to lose yet.
            self.fill_disk(machine, self.number > 0);
            let opened = Store::open(machine.env.clone(), &store_path(), options).await;
            let (store, report) = match opened {
                Ok(opened) => opened,
                Err(error) if self.life.room.is_some() && error.is_no_space() => {
                    return Ended::Stopped(Vec::new());
                }
                Err(error) => {
                    record.complain("open", error.to_string());
                    return Ended::Stopped(Vec::new());
                }
            };
            if !carry.left.is_empty() {
                check_left(&store, &carry.left, record);
            }
            if !faulty {
                // After a kill the store has more uploads than those that were left.
                let used = usize::try_from(report.uploads_resumed).unwrap_or(usize::MAX);
                let places = self.history.options().uploads_max;
                record.0.lock().places = Some(places.saturating_sub(used));
            }
            drop(report);
            self.break_disk(machine);
            let mut left = drive::run_clients(
                &store,
                &machine.env,
                record,
                grace,
                &self.life.clients,
                &carry.left,
            )
            .await;
            if !self.life.closed {
                return Ended::Stopped(left);
            }
            if !faulty {
                left.retain(|left| drive::status_of(&store, left, record).is_some());
            }
            match store.close().await {
                Ok(()) => Ended::Closed(left),
                Err(_) if faulty => Ended::Stopped(left),
                Err(error) => {
                    record.complain("close", error.to_string());
                    Ended::Stopped(left)
                }
            }
        })
    }

    /// The faults of this life, and somebody who mends the disk when everybody waits.
    fn break_disk(&self, machine: &Machine) {
        if !self.life.is_faulty() {
            return;
        }
        for fault in &self.life.faults {
            machine.disk.add_fault(fault.clone());
        }
        self.fill_disk(machine, self.number == 0);
        let (disk, clock) = (machine.disk.clone(), Arc::clone(&machine.env.clock));
        let mend = async move {
            clock.sleep(std::time::Duration::from_secs(30)).await;
            disk.clear_faults();
            disk.set_capacity(None);
        };
        machine.env.spawn.spawn("mend the disk", Box::pin(mend));
    }

    fn fill_disk(&self, machine: &Machine, now: bool) {
        if let Some(room) = self.life.room.filter(|_| now) {
            let used = machine.disk.used_bytes();
            machine.disk.set_capacity(Some(used + room));
        }
    }

    fn noise(&self) -> Noise {
        if self.life.slow {
            Noise {
                short: 60,
                would_block: 90,
                stall: 20,
            }
        } else {
            Noise::default()
        }
    }

    /// Judges every occurrence of every image.
    fn judge(
        &self,
        carry: &Carry,
        record: &Shared,
        recoveries: &Recoveries,
        machine: &Machine,
    ) -> Result<(), Box<Failure>> {
        let record = record.0.lock();
        let timeline = Timeline::new(&carry.model, carry.lsn, &record, self.life.is_faulty());
        let timeline = timeline
            .map_err(|violation| self.failure(machine, violation, "while it ran".to_owned()))?;
        for occurrence in &recoveries.occurrences {
            let judged = recoveries.judge(occurrence, &timeline);
            judged.map_err(|violation| {
                let stop = format!(
                    "stopped after crash point {}, image {:?}",
                    occurrence.points, occurrence.label
                );
                self.failure(machine, violation, stop)
            })?;
        }
        Ok(())
    }

    /// The image that the next life begins with.
    fn pick(&self, last: &[CrashImage], closed: bool) -> (Image, u64) {
        // After a close all is durable, and after a stop anything goes.
        let number = if closed {
            0
        } else {
            Prng::new(self.seed()).below(last.len())
        };
        (last[number].image.clone(), last[number].hash)
    }

    /// Uploads that were at rest when the store was closed are there at the next open.
    fn certain(&self, left: Vec<Left>, record: &Shared) -> Vec<Left> {
        if self.life.is_faulty() {
            return left;
        }
        let record = record.0.lock();
        let with = |mut left: Left| {
            let known = record.uploads.get(&left.id);
            left.certain = known
                .and_then(|sent| sent.at_rest)
                .or(left.certain)
                .filter(|bytes| *bytes > 0);
            left
        };
        left.into_iter().map(with).collect()
    }

    fn failure(&self, machine: &Machine, violation: Violation, stop: String) -> Box<Failure> {
        let log = machine.disk.log_text();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(40);
        Box::new(Failure {
            violation,
            life: self.number + 1,
            stop,
            log: lines[from..].join("\n"),
        })
    }
}

enum Ended {
    Closed(Vec<Left>),
    Stopped(Vec<Left>),
}

fn check_left(store: &Store, left: &[Left], record: &Shared) {
    for left in left {
        let Some(certain) = left.certain else {
            continue;
        };
        let found = store.upload_status(left.id, &left.repository);
        let found = found.map(|status| status.offset);
        if found != Some(certain) {
            let what = format!(
                "upload {} had {certain} bytes when the store was closed and has {found:?} after it was opened",
                left.id
            );
            record.complain("uploads", what);
        }
    }
}
