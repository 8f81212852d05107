//! One history on the simulated machine: every stop, every kind of image, every image recovered and checked.
//!
//! Owns: [`sweep`]. Each life runs once. Before every write, sync and change of a directory its disk returns the images
//! that a stop there may leave. An image is recovered once, and checked each time it occurs, because what it may
//! contain depends on the answers so far. A life that ends without a close leaves one of its images to the next one,
//! whose open is then stopped at every point in turn. So are opens of some other images, and opens after a mere `kill
//! -9`, on a page cache that a later power cut loses.

use std::sync::Arc;

use parking_lot::Mutex;
use tonnage_engine::Store;

use super::census::Census;
use super::damage;
use super::drive::{self, Left};
use super::generate::{self, History, Life};
use super::record::Shared;
use super::recover::{Task, Violation, empty_disk, guarded, has_store, store_path};
use super::recoveries::{DiskCondition, Recoveries};
use super::state::Model;
use super::timeline::Timeline;
use crate::machine::call_sites;
use crate::machine::{CrashImage, Image, Machine, Noise, Policy, Prng};

/// Of crash points, one in this many is a `kill -9` too: the next process starts with the page cache.
const KILL_EVERY: u64 = 10;

/// Of crash points, one in this many has misdirected unsynced writes too.
const STRAY_EVERY: u64 = 8;
/// The number of misdirected writes, each time.
const STRAYS: usize = 2;

/// The depth of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Whether the image after the last stop is damaged on purpose too.
    pub damage: bool,
    /// Whether some stops only kill the process.
    pub kills: bool,
    /// Of crash points, one in this many is a stop; which one depends on the life, whose end always is one.
    pub one_in: u64,
}

impl Default for Depth {
    fn default() -> Self {
        Self {
            damage: true,
            kills: true,
            one_in: 1,
        }
    }
}

/// A violation, and how to reproduce it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The violation.
    pub violation: Violation,
    /// The number of the life in the history, from 1.
    pub life: usize,
    /// The stop, and what survived.
    pub stop: String,
    /// The last operations of the disk before that, newest last.
    pub log: String,
}

/// The counts of a sweep, and its first violation.
#[derive(Debug, Default)]
pub struct Swept {
    /// Counts.
    pub census: Census,
    /// The first violation.
    pub failure: Option<Failure>,
}

/// Runs a history and every stop in it.
pub fn sweep(history: &History, depth: Depth) -> Swept {
    let mut swept = Swept::default();
    drop(call_sites::take_counts());
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
    swept.census.note_call_sites();
    swept
}

/// The state that one life passes to the next.
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

    /// Returns the policy for images: fewer where the check of one takes ten times as long.
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
        let condition = match self.history.seed % 4 {
            1 => DiskCondition::Full,
            3 => DiskCondition::FailingBase,
            _ => DiskCondition::Sound,
        };
        let policy = self.policy();
        let recoveries = Recoveries::new(task, record.clone(), policy, condition);
        let recoveries = Arc::new(Mutex::new(recoveries));
        let (watching, seed) = (Arc::clone(&recoveries), self.seed());
        let Depth {
            damage,
            kills,
            one_in,
        } = self.depth;
        let chosen = Prng::new(seed).next_u64() % one_in;
        machine.disk.watch(move |stop| {
            if stop.points % one_in != chosen {
                return;
            }
            // `KILL_EVERY` and `STRAY_EVERY` count stops, so that all kinds are among them.
            let turn = stop.points / one_in;
            let images = stop.images(&policy(seed ^ stop.points));
            let mut watching = watching.lock();
            watching.census.points += 1;
            watching.add(stop.points, images);
            if kills && turn % KILL_EVERY == seed % KILL_EVERY {
                watching.kill(stop.points, stop.killed());
            }
            if damage && turn.is_multiple_of(STRAY_EVERY) {
                let strays = stop.misdirected_writes(seed ^ stop.points, STRAYS);
                watching.check_misdirected(stop.points, strays);
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
        recoveries.add(machine.disk.points(), last.clone());
        census.add(&recoveries.census);
        census.note_collected(&record.0.lock());
        self.check(carry, &record, &recoveries, &machine)?;
        if let Some((stop, violation)) = recoveries.beside.take() {
            return Err(self.failure(&machine, violation, stop));
        }
        let (image, hash) = self.pick(&last, closed);
        let found = match recoveries.known(hash) {
            Some(Ok(found)) => Arc::clone(found),
            _ => unreachable!("every image was recovered and checked"),
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
            Ended::Stopped(left) => self.uncertain(left, &record),
        };
        Ok(Carry {
            image,
            model: found.model.clone(),
            lsn: found.lsn,
            left,
        })
    }

    /// Runs a life from the open to the stop.
    fn live(&self, machine: &Machine, record: &Shared, carry: &Carry) -> Ended {
        let options = self.history.options();
        let grace = options.collection_grace;
        let faulty = self.life.is_faulty();
        machine.executor.block_on(async {
            // The full disk applies to the later opens from the start; the first one has nothing to lose yet.
            self.fill_disk(machine, self.number > 0);
            let opened = Store::open(machine.env.clone(), &store_path(), options).await;
            let (store, report) = match opened {
                Ok(opened) => opened,
                Err(error) if self.life.room.is_some() && error.is_no_space() => {
                    return Ended::Stopped(Vec::new());
                }
                Err(error) => {
                    record.add_violation("open", error.to_string());
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
                    record.add_violation("close", error.to_string());
                    Ended::Stopped(left)
                }
            }
        })
    }

    /// Sets the faults of this life, and spawns a task that repairs the disk when all clients wait.
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
        machine.env.spawn.spawn("repair the disk", Box::pin(mend));
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

    /// Checks every occurrence of every image.
    fn check(
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
            let checked = recoveries.check(occurrence, &timeline);
            checked.map_err(|violation| {
                let stop = format!(
                    "stopped after crash point {}, image {:?}",
                    occurrence.points, occurrence.label
                );
                self.failure(machine, violation, stop)
            })?;
        }
        Ok(())
    }

    /// Returns the image with which the next life begins.
    fn pick(&self, last: &[CrashImage], closed: bool) -> (Image, u64) {
        // After a close everything is durable; after a stop any image is allowed.
        let number = if closed {
            0
        } else {
            Prng::new(self.seed()).below(last.len())
        };
        (last[number].image.clone(), last[number].hash)
    }

    /// Returns the uploads that were suspended when the store was closed, which must exist at the next open.
    fn certain(&self, left: Vec<Left>, record: &Shared) -> Vec<Left> {
        if self.life.is_faulty() {
            return left;
        }
        let record = record.0.lock();
        let with = |mut left: Left| {
            let known = record.uploads.get(&left.id);
            left.certain = known
                .and_then(|sent| sent.kept_idle)
                .or(left.certain)
                .filter(|bytes| *bytes > 0);
            left
        };
        left.into_iter().map(with).collect()
    }

    /// Returns the uploads of an earlier life after one that was not closed. It may have evicted them.
    fn uncertain(&self, mut left: Vec<Left>, record: &Shared) -> Vec<Left> {
        if self.life.is_faulty() || record.may_evict() {
            left.iter_mut().for_each(|left| left.certain = None);
        }
        left
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
            record.add_violation("uploads", what);
        }
    }
}
