//! One upload, held by the one request that writes to it.
//!
//! Owns: [`Upload`], [`Savepoint`]. Refuses: the pipeline (`body`).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use super::UploadId;
use super::body::{Body, BodyMark, Kept};
use super::sessions::{Session, Uploads};
use crate::batch::FinishedBlob;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::segment::{AbandonGuard, SmallBlob};

/// An upload, ours alone until dropped. Dropping keeps what was received, unless the upload is unlisted.
#[derive(Debug)]
pub struct Upload {
    uploads: Arc<Uploads>,
    session: Arc<Session>,
    body: OwnedMutexGuard<Body>,
}

/// A point of an upload to go back to with [`Upload::rollback`].
#[derive(Debug)]
pub struct Savepoint {
    upload: UploadId,
    mark: BodyMark,
}

impl Upload {
    pub(super) fn new(
        uploads: Arc<Uploads>,
        session: Arc<Session>,
        body: OwnedMutexGuard<Body>,
    ) -> Self {
        Self {
            uploads,
            session,
            body,
        }
    }

    /// Its id.
    pub fn id(&self) -> UploadId {
        self.session.id()
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.body.offset()
    }

    /// The algorithm that runs.
    pub fn algorithm(&self) -> Algorithm {
        self.body.algorithm()
    }

    /// Takes in the next bytes; waits while hash and disk are behind. After an error the upload is gone;
    /// [`Error::UnknownUpload`]: it was cancelled meanwhile.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.session.check()?;
        let written = self.body.write(piece).await;
        self.session.seen(&self.uploads, &self.body);
        written
    }

    /// Remembers where we are.
    pub async fn savepoint(&mut self) -> Result<Savepoint> {
        self.session.check()?;
        Ok(Savepoint {
            upload: self.id(),
            mark: self.body.mark().await?,
        })
    }

    /// Makes the upload what it was at `savepoint`: what was written since was never received.
    pub async fn rollback(&mut self, savepoint: Savepoint) -> Result<()> {
        assert!(
            savepoint.upload == self.id(),
            "a savepoint belongs to one upload"
        );
        let done = self.body.back_to(savepoint.mark).await;
        self.session.seen(&self.uploads, &self.body);
        done
    }

    /// Ends the upload: the bytes are checked against `expected`, on disk and synced. [`Error::DigestMismatch`] leaves
    /// the upload as it was; a failure to write or sync a large one ends it. After success it is gone.
    pub async fn finish(&mut self, expected: Digest) -> Result<FinishedBlob> {
        self.session.check()?;
        let found = self.body.digest(expected.algorithm()).await?;
        if found != expected {
            return Err(Error::DigestMismatch { expected, found });
        }
        let pin = self.uploads.leases().pin(&[expected]);
        let length = self.body.offset();
        let (extent, abandon) = match self.uploads.stored_intact(&expected) {
            Some(extent) => {
                self.body.settle().await;
                (extent, None)
            }
            None => self.store(expected).await?,
        };
        // From here on nothing waits: given up in between, the upload would come back at the next open.
        self.session.finish()?;
        self.uploads.forget(self.session.id());
        self.body.abandon();
        Ok(FinishedBlob {
            digest: expected,
            length,
            extent,
            abandon,
            pin,
        })
    }

    async fn store(&mut self, digest: Digest) -> Result<(Extent, Option<AbandonGuard>)> {
        let appender = self.uploads.segments().appender().clone();
        let (digestion, kept) = self.body.flushed();
        match kept {
            Kept::Memory(pieces) => {
                let (length, checksums) = (digestion.length(), digestion.table());
                let blob = SmallBlob {
                    payload: pieces.clone(),
                    length,
                    digest,
                    checksums,
                };
                Ok((appender.append(blob).await?, None))
            }
            Kept::Spilled(spill) => {
                let finished = spill.finish(digest, digestion).await;
                let guard = finished.is_ok().then(|| spill.hand_over());
                // A sync is not tried twice, so the bytes count as lost.
                Ok((self.body.fail(finished)?, guard))
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.session.seen(&self.uploads, &self.body);
        let cancelled = self.session.released();
        if cancelled || self.body.is_failed() || self.session.is_unlisted() {
            self.uploads.forget(self.session.id());
            self.body.abandon();
        }
    }
}
