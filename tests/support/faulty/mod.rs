//! A disk that fails below the real program: a FUSE file system over a folder, with faults that are switched while it runs.
//!
//! Owns: [`FaultyDisk`], [`Rates`]. The state behind it is in `store`, the calls of the kernel in `calls`. Refuses: faults that
//! no drive has: what a sync covered stays, and a write that failed or fell short says so.
//!
//! What was not synced is known: a sync that fails may lose it at once or at the next power cut, as a page cache does, and so
//! does a power cut itself. So an error that the program swallows is a loss that a test can see.
//!
//! Invariants: it never waits for anything, so nothing above it can hang for its sake. Only the choice of faults is the seed's;
//! how requests meet is the machine's.

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

/// Threads that answer the kernel.
const THREADS: usize = 6;

/// How often calls fail, each of 10 000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// EIO.
    pub reads: u64,
    /// EIO.
    pub writes: u64,
    /// EIO. Half of those that fail lose what they covered at once, the others at the next power cut.
    pub syncs: u64,
    /// EIO on opening, creating and removing names.
    pub names: u64,
    /// ENOSPC or EDQUOT on whatever takes space.
    pub full: u64,
    /// Reads and writes that end early.
    pub short: u64,
    /// EINTR on reads and writes.
    pub interrupted: u64,
}

/// What it did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Calls that failed.
    pub failed: u64,
    /// Reads and writes that ended early.
    pub short: u64,
    /// Syncs that failed.
    pub syncs: u64,
    /// Writes that were lost, by failed syncs and power cuts.
    pub lost: u64,
}

/// A mounted one. It goes with this value.
#[derive(Debug)]
pub struct FaultyDisk {
    // Goes first: the mount ends with it, and the threads with the mount.
    namespace: Namespace,
    store: Arc<Store>,
    _backing: tempfile::TempDir,
}

impl FaultyDisk {
    /// Mounts one that is sound so far. `Err` where that is not allowed.
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
        // The shell's descriptor 2 is the device, which mount(8) passes on to the kernel.
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.namespace.path()
    }

    /// From now on it fails as often as `rates` say.
    pub fn fail(&self, rates: Rates) {
        self.store.fail(rates);
    }

    /// Loses what was not synced, each write as a whole, in part or not, and names whose directory was not synced. Nobody may
    /// have a file open in it.
    pub fn cut_power(&self) -> Result<(), String> {
        self.store
            .cut_power()
            .map_err(|e| format!("cut the power: {e}"))
    }

    /// What it did so far.
    pub fn done(&self) -> Done {
        self.store.done()
    }
}
