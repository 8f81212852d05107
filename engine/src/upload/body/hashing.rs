//! The running hash of an upload, which is at most a window behind its bytes.
//!
//! Invariants: windows are hashed in order, one at a time. A hash that a restart lost, or that is needed under another
//! algorithm, is computed from the stored bytes.

use bytes::Bytes;

use super::{Body, BodyStorage, HashState};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::format::upload_log::UploadCheckpoint;
use crate::in_flight::InFlight;
use crate::limits::CHUNK_BYTES;
use crate::upload::payload_hash::{HASH_INLINE_BYTES, PayloadHash};

impl Body {
    pub(super) fn start_hash(&mut self, pieces: &[Bytes], bytes: u64) {
        let HashState::Ready(mut payload_hash) = std::mem::replace(&mut self.hash, HashState::Lost)
        else {
            unreachable!("the hash of the window before was waited for");
        };
        if bytes <= HASH_INLINE_BYTES {
            payload_hash.update(pieces);
            self.hash = HashState::Ready(payload_hash);
            return;
        }
        let (env, pieces) = (self.shared.env.clone(), pieces.to_vec());
        let client = self.client;
        self.hash = HashState::Hashing(InFlight::start(async move {
            let hashed = env.hash(client, move || {
                payload_hash.update(&pieces);
                payload_hash
            });
            hashed.await
        }));
    }

    /// Waits until everything submitted is hashed.
    pub(super) async fn settle_hash(&mut self) -> Result<()> {
        if let HashState::Hashing(hashing) = &mut self.hash {
            self.hash = match hashing.done().await.take().flatten() {
                Some(payload_hash) => HashState::Ready(payload_hash),
                None => HashState::Lost,
            };
        }
        // A lost computation never ran, which happens only while the program stops.
        if matches!(self.hash, HashState::Lost) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Computes the hash again after a restart, if no mid-state could be kept.
    pub(super) async fn hash_again_if_due(&mut self) -> Result<()> {
        let HashState::Rehash(checkpoint) = &self.hash else {
            return Ok(());
        };
        let (length, mark) = (checkpoint.mark.length, checkpoint.clone());
        let hasher = self
            .hash_with(checkpoint.algorithm, length, table_of(&mark))
            .await?;
        self.hash =
            PayloadHash::with_hasher(hasher, &mark).map_or(HashState::Lost, HashState::Ready);
        Ok(())
    }

    /// Hashes the stored bytes under any algorithm.
    pub(super) async fn hash_with(
        &mut self,
        algorithm: Algorithm,
        length: u64,
        table: Vec<u32>,
    ) -> Result<Hasher> {
        let pool = self.shared.segments.pool().clone();
        match &mut self.storage {
            BodyStorage::Spilled(spill) => spill.hash_again(&pool, algorithm, length, &table).await,
            BodyStorage::Memory(pieces) => {
                let mut hasher = Hasher::new(algorithm);
                for piece in pieces.clone() {
                    let hashed = self.shared.env.hash(self.client, move || {
                        hasher.update(&piece);
                        hasher
                    });
                    hasher = hashed.await.ok_or(Error::Closed)?;
                }
                Ok(hasher)
            }
        }
    }

    /// Returns the digest of everything received. Under another algorithm than the running one, the bytes are read
    /// again (D9: an exception to the rule that a commit's cost does not depend on the size).
    pub(in crate::upload) async fn digest(&mut self, algorithm: Algorithm) -> Result<Digest> {
        let running = self.algorithm;
        let payload_hash = self.flush().await?;
        if algorithm == running {
            return Ok(payload_hash.digest());
        }
        let (length, table) = (payload_hash.length(), payload_hash.table());
        Ok(self.hash_with(algorithm, length, table).await?.finish())
    }
}

/// Returns the checksum table of a checkpoint, the unfinished chunk included.
fn table_of(checkpoint: &UploadCheckpoint) -> Vec<u32> {
    let mut table = checkpoint.checksums.clone();
    let mark = &checkpoint.mark;
    if mark.length.div_ceil(CHUNK_BYTES as u64) > table.len() as u64 {
        table.push(mark.partial);
    }
    table
}
