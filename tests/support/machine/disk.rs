//! The simulated disk behind the seam: operations take effect in any order, fail, stop, and are logged.
//!
//! Owns: [`SimDisk`]. Its `Io` is in `names`, its `File` in `file`, the changes of operations in `state`, faults in
//! `fault`, the images that a stop may leave in `crash`.
//!
//! Invariants: an operation begins at its call and takes effect when the executor picks it. After the stop nothing
//! changes, and operations that had not taken effect never resolve.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonnage_engine::io::{IoError, IoFuture, IoResult};

use super::call_sites;
use super::crash::{CrashImage, Policy, images_of};
use super::executor::Executor;
use super::fault::{ENOSPC, Fault, Noise, OpKind, Struck};
use super::host::Host;
use super::image::Image;
use super::op::{Op, OpRecord};
use super::prng::Prng;
use super::state::{Inode, MachineState};

/// A disk in memory. It is cheap to clone; all clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    host: Arc<dyn Host>,
    state: Mutex<DiskState>,
}

pub(super) struct DiskState {
    pub(super) machine: MachineState,
    pub(super) prng: Prng,
    pub(super) noise: Noise,
    pub(super) capacity: Option<u64>,
    faults: Vec<Fault>,
    points: u64,
    stop_after: Option<u64>,
    stopped: bool,
    pub(super) locked: BTreeSet<PathBuf>,
    log: Vec<OpRecord>,
    watcher: Option<Watcher>,
}

type Watcher = Box<dyn FnMut(&Stop<'_>) + Send>;

/// The machine as it would be if it stopped now, for a watcher.
#[derive(Debug)]
pub struct Stop<'a> {
    /// The number of crash points that took effect.
    pub points: u64,
    machine: &'a MachineState,
}

impl Stop<'_> {
    pub(super) fn machine(&self) -> &MachineState {
        self.machine
    }

    /// Returns the images of [`SimDisk::crash_images`].
    pub fn images(&self, policy: &Policy) -> Vec<CrashImage> {
        images_of(self.machine, policy)
    }

    /// Returns the machine after only the process ended; the power may be cut later.
    pub fn killed(&self) -> Killed {
        let machine = self.machine.without_processes();
        Killed { machine }
    }
}

/// The state after `kill -9`: a page cache with all effects, over a disk that may not have them yet.
#[derive(Debug)]
pub struct Killed {
    machine: MachineState,
}

impl Killed {
    /// Returns the image that the next process sees.
    pub fn live_image(&self) -> Image {
        self.machine.live_image()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("SimDisk")
            .field("points", &state.points)
            .field("stopped", &state.stopped)
            .finish_non_exhaustive()
    }
}

impl SimDisk {
    /// Creates a disk with the content of `image`, all durable, on the machine of `executor`, without faults and with
    /// some noise.
    pub fn new(executor: &Executor, image: &Image) -> Self {
        Self::on(Arc::new(executor.handle()), executor.seed(), image)
    }

    /// Creates the same on another machine.
    pub fn on(host: Arc<dyn Host>, seed: u64, image: &Image) -> Self {
        Self::of(host, seed, MachineState::from_image(image))
    }

    /// Creates the disk and page cache that a killed process leaves.
    pub fn after_kill(executor: &Executor, killed: Killed) -> Self {
        Self::of(Arc::new(executor.handle()), executor.seed(), killed.machine)
    }

    fn of(host: Arc<dyn Host>, seed: u64, machine: MachineState) -> Self {
        let state = DiskState {
            machine,
            prng: Prng::new(seed ^ 0x6469_736b_6469_736b),
            noise: Noise::default(),
            capacity: None,
            faults: Vec::new(),
            points: 0,
            stop_after: None,
            stopped: false,
            locked: BTreeSet::new(),
            log: Vec::new(),
            watcher: None,
        };
        Self {
            shared: Arc::new(Shared {
                host,
                state: Mutex::new(state),
            }),
        }
    }

    /// Stops the machine when the crash point after the `points`-th is about to take effect. That one and all later
    /// ones never do; all that follows from the earlier ones had the chance to happen.
    pub fn stop_after(&self, points: u64) {
        self.shared.state.lock().stop_after = Some(points);
    }

    /// Calls `watcher` before each crash point takes effect, when all that follows from the earlier ones had the chance
    /// to happen. So one run shows every stop that [`SimDisk::stop_after`] could make.
    pub fn watch(&self, watcher: impl FnMut(&Stop<'_>) + Send + 'static) {
        self.shared.state.lock().watcher = Some(Box::new(watcher));
    }

    /// Removes the watcher.
    pub fn unwatch(&self) {
        let watcher = self.shared.state.lock().watcher.take();
        drop(watcher);
    }

    /// Stops the machine now.
    pub fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.host.stop();
    }

    /// Returns the number of crash points that took effect so far.
    pub fn points(&self) -> u64 {
        self.shared.state.lock().points
    }

    /// Adds a fault. Faults are tried in the order in which they were added.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.state.lock().faults.push(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// Sets how much a disk without faults varies.
    pub fn set_noise(&self, noise: Noise) {
        self.shared.state.lock().noise = noise;
    }

    /// Sets how many bytes all files together may have, holes included; `None` means no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.state.lock().capacity = bytes;
    }

    /// Returns the bytes of all files that have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        self.shared.state.lock().machine.used_bytes()
    }

    /// Returns the number of handles of open files.
    pub fn open_files(&self) -> usize {
        self.shared.state.lock().machine.open_files()
    }

    /// Returns every operation so far, in the order in which they took effect.
    pub fn log(&self) -> Vec<OpRecord> {
        self.shared.state.lock().log.clone()
    }

    /// Returns the log as text, one operation a line.
    pub fn log_text(&self) -> String {
        self.shared
            .state
            .lock()
            .log
            .iter()
            .map(|record| format!("{record}\n"))
            .collect()
    }

    /// Returns the image after `kill -9`, with all effects.
    pub fn live_image(&self) -> Image {
        self.shared.state.lock().machine.live_image()
    }

    /// Returns the machine after its processes were killed now.
    pub fn killed(&self) -> Killed {
        self.with_state(|state| Killed {
            machine: state.machine.without_processes(),
        })
    }

    pub(super) fn with_state<T>(&self, look: impl FnOnce(&mut DiskState) -> T) -> T {
        look(&mut self.shared.state.lock())
    }

    /// Starts an operation. `effect` returns its result and the number of bytes that it moved.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        op: Op,
        effect: impl FnOnce(&mut DiskState) -> IoResult<(T, u64)> + Send + 'static,
    ) -> IoFuture<T> {
        self.submit_or(op, effect, |_| ())
    }

    /// Starts an operation as `submit` does; if a fault applies, `failed` is called in place of `effect`.
    pub(super) fn submit_or<T: Send + 'static>(
        &self,
        op: Op,
        effect: impl FnOnce(&mut DiskState) -> IoResult<(T, u64)> + Send + 'static,
        failed: impl FnOnce(&mut DiskState) + Send + 'static,
    ) -> IoFuture<T> {
        let (done, result) = oneshot::channel();
        let disk = self.clone();
        let stall = self.with_state(DiskState::maybe_stall);
        let changes = op.kind.is_crash_point();
        let operation = Box::new(move || {
            if let Some(result) = disk.perform(op, effect, failed) {
                // The caller may have dropped its future; the operation took effect nevertheless.
                drop(done.send(result));
            }
        });
        let host = &self.shared.host;
        match stall {
            None => host.submit(changes, operation),
            Some(time) => {
                let later = Arc::clone(host);
                let waiting = async move {
                    later.sleep(time).await;
                    later.submit(changes, operation);
                };
                host.spawn("stalled operation", Box::pin(waiting));
            }
        }
        Box::pin(async move {
            match result.await {
                Ok(result) => result,
                Err(_stopped) => std::future::pending().await,
            }
        })
    }

    /// Starts a chain of operations, which continues also if its caller drops it.
    pub(super) fn chain<T: Send + 'static>(
        &self,
        operations: impl Future<Output = IoResult<T>> + Send + 'static,
    ) -> IoFuture<T> {
        let (done, result) = oneshot::channel();
        let task = async move { drop(done.send(operations.await)) };
        self.shared.host.spawn("chained operations", Box::pin(task));
        Box::pin(async move {
            match result.await {
                Ok(result) => result,
                Err(_stopped) => std::future::pending().await,
            }
        })
    }

    /// Lets an operation take effect. Returns `None` if the machine is stopped.
    fn perform<T>(
        &self,
        op: Op,
        effect: impl FnOnce(&mut DiskState) -> IoResult<(T, u64)>,
        failed: impl FnOnce(&mut DiskState),
    ) -> Option<IoResult<T>> {
        let mut state = self.shared.state.lock();
        if op.kind.is_crash_point() && state.stop_after == Some(state.points) {
            state.stopped = true;
        }
        if state.stopped {
            drop(state);
            self.shared.host.stop();
            return None;
        }
        if op.kind.is_crash_point() {
            call_sites::count(op.call);
            state.show_stop();
        }
        let result = match state.apply_faults(&op) {
            Some(Struck { errno, attempted }) => {
                let cause = io::Error::from_raw_os_error(errno);
                if !attempted {
                    Err(IoError::NotAttempted(cause))
                } else {
                    failed(&mut state);
                    Err(if op.kind.is_sync() {
                        IoError::SyncFailed(cause)
                    } else {
                        IoError::Failed(cause)
                    })
                }
            }
            None => effect(&mut state),
        };
        Some(state.record(op, result))
    }
}

impl DiskState {
    /// Returns the effect of the first fault that applies to this operation.
    fn apply_faults(&mut self, op: &Op) -> Option<Struck> {
        let Self { faults, prng, .. } = self;
        let mut struck = None;
        let apt = |fault: &&mut Fault| !fault.flips && (fault.attempted || !op.linked);
        for fault in faults.iter_mut().filter(apt) {
            if fault.occurs(op.kind, &op.path, prng) && struck.is_none() {
                struck = Some(Struck {
                    errno: fault.errno,
                    attempted: fault.attempted,
                });
            }
        }
        struck
    }

    /// Flips a bit of bytes that were just read, if a fault says so.
    pub(super) fn maybe_flip(&mut self, kind: OpKind, path: &Path, bytes: &mut [u8]) {
        let Self { faults, prng, .. } = self;
        for fault in faults.iter_mut().filter(|fault| fault.flips) {
            if fault.occurs(kind, path, prng) && !bytes.is_empty() {
                let at = prng.below(bytes.len());
                bytes[at] ^= 1 << prng.below(8);
            }
        }
    }

    fn show_stop(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            watcher(&Stop {
                points: self.points,
                machine: &self.machine,
            });
            self.watcher = Some(watcher);
        }
    }

    fn record<T>(&mut self, op: Op, result: IoResult<(T, u64)>) -> IoResult<T> {
        let Op {
            call,
            kind,
            path,
            offset,
            length,
            linked: _,
        } = op;
        let mut record = OpRecord {
            point: None,
            call,
            kind,
            path,
            offset,
            length,
            errno: None,
        };
        let result = match result {
            Ok((value, moved)) => {
                if kind.is_crash_point() {
                    self.points += 1;
                    record.point = Some(self.points);
                }
                record.length = moved;
                Ok(value)
            }
            Err(refused) => {
                record.errno = Some(refused.cause().raw_os_error().unwrap_or_default());
                Err(refused)
            }
        };
        self.log.push(record);
        result
    }

    /// Returns how many of `wanted` bytes fit on the disk.
    pub(super) fn room(&self, wanted: u64) -> u64 {
        match self.capacity {
            Some(capacity) => capacity
                .saturating_sub(self.machine.used_bytes())
                .min(wanted),
            None => wanted,
        }
    }

    /// Fails with ENOSPC if `wanted` more bytes do not fit.
    pub(super) fn check_room(&self, wanted: u64) -> IoResult<()> {
        if self.room(wanted) < wanted {
            return Err(io::Error::from_raw_os_error(ENOSPC).into());
        }
        Ok(())
    }

    /// Returns `count`, or less if the noise shortens it; never 0 unless `count` is.
    pub(super) fn maybe_short(&mut self, count: usize) -> usize {
        if count > 1 && self.prng.percent(self.noise.short) {
            1 + self.prng.below(count - 1)
        } else {
            count
        }
    }

    /// Returns how long an operation waits before it begins, if the noise delays it.
    fn maybe_stall(&mut self) -> Option<Duration> {
        let stalls = self.noise.stall > 0 && self.prng.percent(self.noise.stall);
        stalls.then(|| Duration::from_millis(1 + self.prng.below(500) as u64))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

impl SimDisk {
    pub(super) fn close(&self, inode: Inode) {
        self.with_state(|state| state.machine.drop_handle(inode));
    }
}
