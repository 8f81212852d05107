//! Stores that are filled once for each size and kept for the next run, and copies of them.
//!
//! Owns: `target/bench-stores`. `SIZE/store` in it is a closed store of that many blobs, and `SIZE/complete` is written
//! once it is filled. To fill it anew, as after a change of a format, delete `SIZE`. `run-*` are copies; a bench that
//! is interrupted leaves its own. Refuses: what is stored ([`super::content`]).
//!
//! Invariant: no bench opens a kept store. It opens a copy, in which the files that a store never changes again are
//! hard links. So every bench and every run begins with the same state.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::content::{IMAGE_BLOBS, push_images};
use super::{open, options};

/// The content of `SIZE/complete`. A store with another one is filled again.
const FILL: &str = "images of ten blobs of 8 bytes, 1";
/// Journal files that a store may still change: the last one, and the one before.
const CHANGING: usize = 2;

/// Returns the directory of the stores that are kept, on the disk that is measured.
fn stores() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
        benches.parent().unwrap_or(benches).join("target")
    });
    let stores = target.join("bench-stores");
    fs::create_dir_all(&stores).expect("a directory for stores");
    stores
}

/// Creates a directory for a store of one bench.
pub(super) fn directory() -> TempDir {
    TempDir::with_prefix_in("run-", stores()).expect("a directory for the bench")
}

/// Returns a copy of the kept store of `blobs` blobs, which is filled first if there is none.
pub fn kept(blobs: u64) -> TempDir {
    let kept = stores().join(blobs.to_string());
    let (store, complete) = (kept.join("store"), kept.join("complete"));
    if fs::read_to_string(&complete).is_ok_and(|fill| fill == FILL) {
        return copied(&store);
    }
    match fs::remove_dir_all(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{kept:?}: {error}"),
        _ => {}
    }
    fs::create_dir_all(&store).expect("a directory for the store");
    eprintln!("filling {} with {blobs} blobs", kept.display());
    let began = Instant::now();
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(&store, options()).await;
        push_images(&store, 0..blobs / IMAGE_BLOBS).await;
        store.close().await.expect("a clean close");
    });
    eprintln!("filled in {:.1} s", began.elapsed().as_secs_f64());
    fs::write(complete, FILL).expect("the mark of a complete store");
    copied(&store)
}

/// Copies a store whose files do not change meanwhile.
pub fn copied(store: &Path) -> TempDir {
    let copy = directory();
    copy_files(store, copy.path()).expect("a copy of the store");
    copy
}

/// Copies a directory of a store. The runs, the segments and the older journal files become hard links. Copies are
/// synced, so that no bench waits for their writes.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(from)? {
        paths.push(entry?.path());
    }
    paths.sort();
    let linked = match from.file_name().and_then(|name| name.to_str()) {
        Some("runs" | "segments") => paths.len(),
        Some("journal") => paths.len().saturating_sub(CHANGING),
        _ => 0,
    };
    for (position, path) in paths.iter().enumerate() {
        let copy = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            fs::create_dir(&copy)?;
            copy_files(path, &copy)?;
        } else if position < linked {
            fs::hard_link(path, &copy)?;
        } else {
            fs::copy(path, &copy)?;
            File::open(&copy)?.sync_all()?;
        }
    }
    Ok(())
}
