//! An upload as one request has it.
//!
//! Owns: [`Upload`], [`Savepoint`], and how an upload becomes a blob. Refuses: the pipeline (`body`) and the order of
//! requests (`session`).

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};

use super::body::{Body, BodyMark, BodyStorage};
use super::session::{Held, Session};
use super::sessions::Uploads;
use super::space::with_space;
use super::staging::SMALL_BYTES;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::finished_blob::{CommitListener, FinishedBlob};
use crate::segment::{AbandonGuard, Appended, SegmentInUse, SmallBlob};
use crate::vocabulary::UploadId;

/// An upload that this request writes to, until another request takes over ([`Error::UploadBusy`]) or the upload ends
/// ([`Error::UnknownUpload`]). Dropping it keeps the received bytes, unless the upload is unlisted.
#[derive(Debug)]
pub struct Upload {
    uploads: Arc<Uploads>,
    session: Arc<Session>,
    turn: u64,
}

/// A point of an upload to roll back to with [`Upload::rollback`].
#[derive(Debug)]
pub struct Savepoint {
    upload: UploadId,
    mark: BodyMark,
}

/// Evaluates a step of a request with [`with_space`]. A step that still finds no space may end the upload.
macro_rules! step {
    ($upload:expr, $body:expr, $step:expr) => {{
        // After a failed sync, or for a length that cannot fit, the upload is over.
        let done = with_space!($upload.uploads.shared(), $step, unless $body.is_failed());
        if let Err(error) = &done {
            $body.end_without_space(error);
        }
        done
    }};
}

impl Upload {
    pub(super) fn new(uploads: Arc<Uploads>, session: Arc<Session>, turn: u64) -> Self {
        Self {
            uploads,
            session,
            turn,
        }
    }

    /// Returns its id.
    pub fn id(&self) -> UploadId {
        self.session.id()
    }

    /// Returns the number of bytes received.
    pub fn offset(&self) -> u64 {
        self.session.offset()
    }

    /// Returns the running algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.session.algorithm()
    }

    /// Resolves to the reason when this request must stop; for a request that waits for its client.
    pub fn interrupted(&self) -> impl Future<Output = Error> + Send + 'static + use<> {
        let (session, turn) = (Arc::clone(&self.session), self.turn);
        async move {
            loop {
                let changed = session.changed();
                if let Err(reason) = session.check(turn) {
                    return reason;
                }
                changed.await;
            }
        }
    }

    /// Waits for the request that took over, and returns the digest that the upload became; `None` if it became no
    /// blob.
    pub fn outcome(&self) -> impl Future<Output = Option<Digest>> + Send + 'static + use<> {
        let (uploads, session) = (Arc::clone(&self.uploads), Arc::clone(&self.session));
        async move {
            session.wait_until_idle().await;
            uploads.finished(session.id(), session.repository())
        }
    }

    async fn body(&self) -> Result<Held<'_>> {
        let body = self.session.hold(&self.uploads).await;
        self.session.check(self.turn)?;
        Ok(body)
    }

    /// Takes in the next bytes; waits while hash and disk are busy, until the upload is cancelled.
    ///
    /// # Errors
    /// [`Error::UploadBusy`] if the request lost its turn. Other errors end the upload.
    pub async fn write(&mut self, mut piece: Bytes) -> Result<()> {
        let mut body = self.body().await?;
        let written = async { step!(self, body, body.write(&mut piece).await) };
        match select(pin!(written), pin!(self.interrupted())).await {
            Either::Left((written, _)) => written,
            Either::Right((reason, _)) => Err(reason),
        }
    }

    /// Marks the present offset.
    pub async fn savepoint(&mut self) -> Result<Savepoint> {
        let mut body = self.body().await?;
        let mark = step!(self, body, body.mark().await)?;
        Ok(self.at(mark))
    }

    /// Marks the present offset as the beginning of a closing request that names no offset.
    ///
    /// Bytes that an earlier such request sent are rolled back first, because this one is the same, sent again. They
    /// stay if an answer counted them before this request took the upload.
    pub async fn savepoint_of_close(&mut self) -> Result<Savepoint> {
        let mut body = self.body().await?;
        if let Some(mark) = body.unanswered().cloned() {
            self.session.begin_rollback(mark.offset());
            self.roll_back_to(&mut body, &mark).await?;
        }
        let mark = step!(self, body, body.mark_close().await)?;
        Ok(self.at(mark))
    }

    fn at(&self, mark: BodyMark) -> Savepoint {
        let upload = self.id();
        Savepoint { upload, mark }
    }

    /// Rolls the upload back to `savepoint`: bytes written since count as never received.
    pub async fn rollback(&mut self, savepoint: Savepoint) -> Result<()> {
        let mark = self.mark_of(savepoint);
        let mut body = self.body().await?;
        self.roll_back_to(&mut body, &mark).await
    }

    async fn roll_back_to(&self, body: &mut Body, mark: &BodyMark) -> Result<()> {
        step!(self, body, body.roll_back_to(mark).await)
    }

    fn mark_of(&self, savepoint: Savepoint) -> BodyMark {
        assert!(
            savepoint.upload == self.id(),
            "a savepoint belongs to one upload"
        );
        savepoint.mark
    }

    /// Finishes the upload: its bytes are compared with `expected`, and are on disk and synced on return. It then takes
    /// no more bytes, and ends with the commit of the blob or its drop.
    ///
    /// # Errors
    /// After an error that the upload survives, such as [`Error::DigestMismatch`], it is rolled back to
    /// `back_to`, or unchanged without one; no other request can come in between. A failure to write or sync a large
    /// upload ends it.
    pub fn finish(
        &mut self,
        expected: Digest,
        back_to: Option<Savepoint>,
    ) -> BoxFuture<'_, Result<FinishedBlob>> {
        Box::pin(self.finish_or_roll_back(expected, back_to))
    }

    async fn finish_or_roll_back(
        &mut self,
        expected: Digest,
        back_to: Option<Savepoint>,
    ) -> Result<FinishedBlob> {
        let back_to = back_to.map(|savepoint| self.mark_of(savepoint));
        let mut body = self.body().await?;
        let completion = Completion::begin(&self.uploads, &self.session, expected)?;
        match self.try_finish(&mut body, completion, expected).await {
            Ok(blob) => Ok(blob),
            Err((error, completion)) => {
                if let Some(mark) = back_to
                    && !body.is_failed()
                    && let Err(error) = self.roll_back_to(&mut body, &mark).await
                {
                    tracing::warn!(upload = %self.id(), %error, "bytes of a close that failed could not be rolled back");
                }
                drop(completion);
                Err(error)
            }
        }
    }

    async fn try_finish(
        &self,
        body: &mut Body,
        mut completion: Completion,
        expected: Digest,
    ) -> std::result::Result<FinishedBlob, (Error, Completion)> {
        let pin = match self.uploads.leases().pin(&[expected]).await {
            Ok(pin) => pin,
            Err(error) => return Err((error, completion)),
        };
        let stored = step!(self, body, self.check_and_store(body, expected).await);
        let StoredBytes {
            extent,
            abandon,
            in_use,
        } = match stored {
            Ok(stored) => stored,
            Err(error) => return Err((error, completion)),
        };
        let length = body.offset();
        // Nothing waits from here on: if it were given up, the upload would be found again at the next open.
        let finished = completion.finished();
        body.abandon();
        if let Err(error) = finished {
            return Err((error, completion));
        }
        Ok(FinishedBlob {
            digest: expected,
            length,
            extent,
            abandon,
            in_use,
            pin,
            listener: Some(Box::new(completion)),
        })
    }

    async fn check_and_store(&self, body: &mut Body, expected: Digest) -> Result<StoredBytes> {
        let found = body.digest(expected.algorithm()).await?;
        if found != expected {
            return Err(Error::DigestMismatch { expected, found });
        }
        if let Some(extent) = self.uploads.stored_intact(&expected, body.client()).await? {
            body.settle().await;
            return Ok(StoredBytes {
                extent,
                abandon: None,
                in_use: None,
            });
        }
        self.store(body, expected).await
    }

    async fn store(&self, body: &mut Body, digest: Digest) -> Result<StoredBytes> {
        let pool = self.uploads.segments().pool().clone();
        let threshold = self.uploads.shared().options.spill_threshold_bytes;
        let (payload_hash, storage) = body.flushed();
        let length = payload_hash.length();
        let payload = match storage {
            BodyStorage::Memory(pieces) => pieces.clone(),
            // It spilled because it was quiet or memory was short. A segment of its own would stay for good.
            BodyStorage::Spilled(spill) if length <= SMALL_BYTES.min(threshold) => {
                let read = spill.read_back(&pool, payload_hash).await;
                vec![body.fail(read)?]
            }
            BodyStorage::Spilled(spill) => {
                let finished = spill.finish(digest, payload_hash).await;
                let guard = finished.is_ok().then(|| spill.take_segment());
                // A sync is not repeated, so the bytes count as lost.
                return Ok(StoredBytes {
                    extent: body.fail(finished)?,
                    abandon: guard,
                    in_use: None,
                });
            }
        };
        let (payload_hash, _) = body.flushed();
        let blob = SmallBlob {
            payload,
            length,
            digest,
            checksums: payload_hash.table(),
        };
        let appender = self.uploads.segments().appender();
        let Appended { extent, in_use } = appender.append(blob).await?;
        Ok(StoredBytes {
            extent,
            abandon: None,
            in_use: Some(in_use),
        })
    }
}

/// The bytes of a finished upload, and what keeps their segment until the commit.
struct StoredBytes {
    extent: Extent,
    abandon: Option<AbandonGuard>,
    in_use: Option<Arc<SegmentInUse>>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.session.release(self.turn, self.uploads.now()) {
            self.uploads.forget(&self.session);
        } else {
            self.uploads.note(&self.session);
        }
    }
}

/// An upload that is becoming a blob and being committed. Dropped before it is finished, the upload takes bytes again;
/// dropped afterwards, the upload ends.
#[derive(Debug)]
struct Completion {
    uploads: Arc<Uploads>,
    session: Arc<Session>,
    digest: Digest,
    finished: bool,
}

impl Completion {
    fn begin(uploads: &Arc<Uploads>, session: &Arc<Session>, digest: Digest) -> Result<Self> {
        session.begin_finish()?;
        Ok(Self {
            uploads: Arc::clone(uploads),
            session: Arc::clone(session),
            digest,
            finished: false,
        })
    }

    fn finished(&mut self) -> Result<()> {
        self.session.finished()?;
        self.finished = true;
        Ok(())
    }
}

impl CommitListener for Completion {
    fn committed(self: Box<Self>) {
        self.uploads.remember(&self.session, self.digest);
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if self.finished {
            self.session.end();
            self.uploads.forget(&self.session);
        } else {
            self.session.reopen();
        }
    }
}
