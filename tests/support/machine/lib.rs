//! The simulated machine: one seeded executor and a disk that keeps only what it was made to keep.
//!
//! Owns: [`Machine`], [`Executor`], [`SimDisk`], [`Image`], [`Policy`], [`Fault`].
//! Refuses: threads, real time, real files, and any order that does not follow from the seed.
//!
//! A crash test runs its workload once under [`SimDisk::watch`], which shows every crash point with the images that a stop there
//! may leave, and opens each on a new machine. To go on from one of them, or to stop for good: [`SimDisk::stop_after`]`(k)`
//! under [`Executor::run_until_crash`].

pub mod bad_io;
mod content;
mod crash;
mod disk;
mod executor;
mod fault;
mod file;
mod handle;
mod host;
mod image;
mod names;
mod op;
pub mod places;
mod prng;
mod state;
mod stray;
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
pub use self::names::SIM_PID;
pub use self::op::OpRecord;
pub use self::prng::Prng;
pub use self::stray::Stray;

/// A machine that was just switched on.
#[derive(Debug)]
pub struct Machine {
    /// Runs everything; dropping it drops all tasks.
    pub executor: Executor,
    /// The disk behind `env.io`.
    pub disk: SimDisk,
    /// What an engine is given.
    pub env: Env,
}

impl Machine {
    /// A machine whose disk holds `image`, all of it durable. Everything that happens follows from `seed`.
    pub fn new(seed: u64, image: &Image) -> Self {
        let executor = Executor::new(seed);
        let disk = SimDisk::new(&executor, image);
        Self::of(executor, disk)
    }

    /// The same machine after its processes were killed: what was not synced is in its page cache.
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
