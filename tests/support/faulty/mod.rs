//! A faulty disk below the real program: a FUSE file system over a directory, with faults that can be switched while it
//! is mounted.
//!
//! Owns: [`FaultyDisk`], [`Rates`]; the state is in `store`, the calls of the kernel in `calls`. Refuses: faults that
//! no drive has. What a sync covered stays, and a failed or short write reports that.
//!
//! The disk knows what was not synced. A failed sync may lose it at once or at the next power cut, as a page cache
//! does; so does a power cut itself. So an error that the program ignores becomes a loss that a test can see.
//!
//! Invariants: the disk never waits, so it cannot hang a program. The seed decides only the choice of faults; the
//! machine decides the order of requests.

mod calls;
mod store;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use fuser::{Config, Session, SessionACL};

use self::calls::Calls;
use self::store::Store;
use crate::mount::Namespace;
use crate::process;

/// The number of threads that answer the kernel.
const THREADS: usize = 6;

/// Failure rates of calls, in units of 1/10 000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// EIO of reads.
    pub reads: u64,
    /// EIO of writes.
    pub writes: u64,
    /// EIO of syncs. Half of the failed ones lose what they covered at once, the others at the next power cut.
    pub syncs: u64,
    /// EIO when names are opened, created or removed.
    pub names: u64,
    /// ENOSPC or EDQUOT of calls that take space.
    pub full: u64,
    /// Short reads and writes.
    pub short: u64,
    /// EINTR of reads and writes.
    pub interrupted: u64,
    /// EINVAL of opens for direct I/O.
    pub direct: u64,
}

/// Counts of injected faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Failed calls.
    pub failed: u64,
    /// Short reads and writes.
    pub short: u64,
    /// Failed syncs.
    pub syncs: u64,
    /// Failed opens for direct I/O.
    pub direct: u64,
    /// Writes that were lost by failed syncs and power cuts.
    pub lost: u64,
}

/// A mounted faulty disk, unmounted when this value is dropped.
#[derive(Debug)]
pub struct FaultyDisk {
    // Dropped first: this ends the mount, and the mount's end stops the threads.
    namespace: Namespace,
    store: Arc<Store>,
    _backing: tempfile::TempDir,
}

impl FaultyDisk {
    /// Mounts a disk without faults so far. Returns `Err` if mounting is not permitted.
    pub fn mount(seed: u64) -> Result<Self, String> {
        let backing = process::folder()?;
        let device = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|e| format!("open /dev/fuse: {e}"))?;
        let shared = device
            .try_clone()
            .map_err(|e| format!("share /dev/fuse: {e}"))?;
        // Descriptor 2 of the shell is the device, which mount(8) passes on to the kernel.
        let mut namespace = Namespace::new(Stdio::from(shared))?;
        namespace.run(
            "mount -i -t fuse -o fd=2,rootmode=40000,user_id=0,group_id=0,nosuid,nodev faulty",
        )?;
        let store = Store::new(backing.path(), seed)
            .map_err(|e| format!("fill {}: {e}", backing.path().display()))?;
        let store = Arc::new(store);
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        let calls = Calls::new(Arc::clone(&store));
        let session = Session::from_fd(calls, device.into(), SessionACL::Owner, config)
            .map_err(|e| format!("speak FUSE: {e}"))?;
        std::thread::Builder::new()
            .name("faulty-disk".to_owned())
            .spawn(move || drop(session.run()))
            .map_err(|e| format!("start a thread: {e}"))?;
        let path = namespace.path();
        std::fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self {
            namespace,
            store,
            _backing: backing,
        })
    }

    /// Returns the path of the disk.
    pub fn path(&self) -> &Path {
        self.namespace.path()
    }

    /// Sets the failure rates from now on.
    pub fn fail(&self, rates: Rates) {
        self.store.fail(rates);
    }

    /// Loses what was not synced: each write as a whole, in part or not at all, and names whose directory was not
    /// synced. No file on the disk may be open.
    pub fn cut_power(&self) -> Result<(), String> {
        self.store
            .cut_power()
            .map_err(|e| format!("cut the power: {e}"))
    }

    /// Returns the counts so far.
    pub fn done(&self) -> Done {
        self.store.done()
    }
}
