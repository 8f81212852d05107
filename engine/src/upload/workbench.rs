//! The data path of the engine on a real directory, built as the store builds it.
//!
//! Owns: one open "store" without journal: segments and uploads over the real backend. Refuses: assertions.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the files themselves"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::{Existing, Upload, Uploads};
use crate::digest::{Algorithm, Digest};
use crate::error::Result;
use crate::extent::{Extent, SegmentId};
use crate::io::{Class, Directory, Env, test_env};
use crate::lease::Leases;
use crate::options::Options;
use crate::poison::Poison;
use crate::segment::{DedicatedWriter, SegmentIds, Segments};
use crate::sync::Mutex;
use crate::vocabulary::{ClientId, UploadClaim, UploadId, UploadSpec};

pub(crate) const STORE: [u8; 16] = *b"a store of tests";
pub(crate) const REPOSITORY: &str = "library/test";

/// The blobs that the "index" has.
#[derive(Debug, Default)]
pub(crate) struct Index(pub(crate) Mutex<HashMap<Digest, Extent>>);

impl Existing for Index {
    fn stored(&self, digest: Digest) -> Pin<Box<dyn Future<Output = Option<Extent>> + Send + '_>> {
        Box::pin(std::future::ready(self.0.lock().get(&digest).copied()))
    }
}

/// An open data path.
pub(crate) struct Workbench {
    pub(crate) env: Env,
    pub(crate) segments: Arc<Segments>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) index: Arc<Index>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) poison: Arc<Poison>,
    pub(crate) dir: PathBuf,
}

async fn directory(env: &Env, path: &Path) -> Directory {
    let opened = Directory::open(&*env.io, Class::Directory.call(), path);
    opened.await.unwrap()
}

impl Workbench {
    /// Opens what is in `dir`; ids start at `first_id`, as after a reservation.
    pub(crate) async fn open(dir: &Path, first_id: u64, options: &Options) -> Self {
        Self::open_with(test_env::env(), dir, first_id, options).await
    }

    pub(crate) async fn open_with(env: Env, dir: &Path, first_id: u64, options: &Options) -> Self {
        for name in ["segments", "uploads"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let poison = Arc::new(Poison::default());
        let ids = SegmentIds::new(
            SegmentId(first_id),
            SegmentId(first_id + 1000),
            Arc::clone(&poison),
        );
        let segments = Segments::new(
            env.clone(),
            directory(&env, &dir.join("segments")).await,
            STORE,
            ids,
            &poison,
            options,
        );
        let leases = Leases::new(
            Arc::clone(&env.clock),
            options.collection_grace,
            Arc::clone(&poison),
        );
        let index = Arc::new(Index::default());
        let uploads = Uploads::new(
            env.clone(),
            directory(&env, &dir.join("uploads")).await,
            Arc::clone(&segments),
            Arc::clone(&leases),
            Arc::clone(&index) as Arc<dyn Existing>,
            options,
        );
        Self {
            env,
            segments,
            uploads,
            index,
            leases,
            poison,
            dir: dir.to_path_buf(),
        }
    }

    pub(crate) fn begin(&self, algorithm: Algorithm) -> UploadId {
        let (repository, algorithm) = (REPOSITORY.to_owned(), Some(algorithm));
        self.uploads
            .begin(UploadSpec {
                repository,
                algorithm,
                ..UploadSpec::default()
            })
            .unwrap()
    }

    pub(crate) async fn upload(&self, id: UploadId) -> Upload {
        let claim = UploadClaim::default();
        self.uploads.open(id, REPOSITORY, claim).await.unwrap()
    }

    /// Reads the bytes of `range` of a blob, in one piece.
    pub(crate) async fn read(
        &self,
        digest: Digest,
        extent: Extent,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<u8>> {
        let opened = self
            .segments
            .try_open_blob(digest, extent, ClientId::default());
        let opened = opened.await;
        let reader = opened.map_err(|failure| self.segments.mark(failure, digest, extent))?;
        let mut stream = reader.read(range);
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    pub(crate) async fn create_dedicated(&self, length: Option<u64>) -> Result<DedicatedWriter> {
        let permit = self.segments.files().writer_permit().await?;
        self.segments.create_dedicated(permit, length).await
    }

    pub(crate) fn segment_path(&self, id: SegmentId) -> PathBuf {
        self.segments.files().path(id)
    }

    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join(directory)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Runs a test on a runtime of its own, in a fresh directory.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(TempDir) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(TempDir::new().unwrap()));
}

/// Returns `length` bytes that depend on `seed` and do not repeat within a chunk.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Writes `bytes` in pieces of `piece` bytes.
pub(crate) async fn write(upload: &mut Upload, bytes: &[u8], piece: usize) {
    for part in bytes.chunks(piece) {
        upload.write(Bytes::copy_from_slice(part)).await.unwrap();
    }
}

/// Returns options with windows and thresholds so small that a few MiB reach every path.
pub(crate) fn small_options() -> Options {
    Options {
        spill_threshold_bytes: 512 << 10,
        upload_window_bytes: 128 << 10,
        upload_checkpoint_bytes: 1 << 20,
        unsynced_bytes_max: 1 << 20,
        shared_segment_bytes: 4 << 20,
        ..Options::default()
    }
}

/// Waits until `done`, for work of the engine in the background. Bounded by turns, not by time.
pub(crate) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..200_000 {
        if done() {
            return;
        }
        std::thread::yield_now();
        tokio::task::yield_now().await;
    }
    panic!("never happened: {what}");
}
