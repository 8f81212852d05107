//! The simulated machine: one seeded executor, and a disk that keeps only what was made durable.
//!
//! Owns: [`Machine`], [`Executor`], [`SimDisk`], [`Image`], [`Policy`], [`Fault`].
//! Refuses: threads, real time, real files, and any order that does not follow from the seed.
//!
//! A crash test runs its workload once under [`SimDisk::watch`], which shows every crash point with the images that a
//! stop there may leave, and opens each on a new machine. A test that continues from one of them, or stops for good,
//! uses [`SimDisk::stop_after`]`(k)` with [`Executor::run_until_crash`].

pub mod bad_io;
pub mod call_sites;
mod content;
mod crash;
mod disk;
mod executor;
mod fault;
mod file;
mod handle;
mod host;
mod image;
mod misdirected;
mod names;
mod op;
mod prng;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tonnage_engine::io::Env;

pub use self::content::Content;
pub use self::crash::{CrashImage, Policy};
pub use self::disk::{Killed, SimDisk, Stop};
pub use self::executor::{Executor, Outcome};
pub use self::fault::{EDQUOT, EINTR, EIO, EMFILE, ENOSPC, Fault, Noise, OpKind, When};
pub use self::handle::Handle;
pub use self::host::Host;
pub use self::image::Image;
pub use self::misdirected::MisdirectedWrite;
pub use self::names::SIM_PID;
pub use self::op::OpRecord;
pub use self::prng::Prng;

/// A machine that was just started.
#[derive(Debug)]
pub struct Machine {
    /// Runs everything; dropping it drops all tasks.
    pub executor: Executor,
    /// The disk behind `env.io`.
    pub disk: SimDisk,
    /// The environment of an engine.
    pub env: Env,
}

impl Machine {
    /// Creates a machine whose disk has the content of `image`, all durable. Everything that happens follows from
    /// `seed`.
    pub fn new(seed: u64, image: &Image) -> Self {
        let executor = Executor::new(seed);
        let disk = SimDisk::new(&executor, image);
        Self::of(executor, disk)
    }

    /// Returns the same machine after its processes were killed, with unsynced data in its page cache.
    pub fn after_kill(seed: u64, killed: Killed) -> Self {
        let executor = Executor::new(seed);
        let disk = SimDisk::after_kill(&executor, killed);
        Self::of(executor, disk)
    }

    fn of(executor: Executor, disk: SimDisk) -> Self {
        let handle = Arc::new(executor.handle());
        let io = bad_io::around(Arc::new(disk.clone()), Arc::clone(&handle) as _);
        let env = Env {
            io,
            clock: Arc::clone(&handle) as _,
            spawn: Arc::clone(&handle) as _,
            rng: handle,
        };
        Self {
            executor,
            disk,
            env,
        }
    }
}
