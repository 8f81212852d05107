//! An upload in the hands of one request.
//!
//! Owns: [`Upload`], [`Savepoint`], and how an upload becomes a blob. Refuses: the pipeline (`body`) and whose turn it is
//! (`session`).

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::body::{Body, BodyMark, Kept};
use super::session::{Held, Session};
use super::sessions::Uploads;
use super::space::with_space;
use super::staging::SMALL_BYTES;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::finished_blob::{CommitListener, FinishedBlob};
use crate::segment::{AbandonGuard, SmallBlob};
use crate::vocabulary::UploadId;

/// An upload that this request writes to, until another one takes over ([`Error::UploadBusy`]) or it ends
/// ([`Error::UnknownUpload`]). Dropping keeps what was received, unless the upload is unlisted.
#[derive(Debug)]
pub struct Upload {
    uploads: Arc<Uploads>,
    session: Arc<Session>,
    turn: u64,
}

/// A point of an upload to go back to with [`Upload::rollback`].
#[derive(Debug)]
pub struct Savepoint {
    upload: UploadId,
    mark: BodyMark,
}

/// As [`with_space`], for a step of a request. One that finds no space even so may end the upload.
macro_rules! step {
    ($upload:expr, $body:expr, $step:expr) => {{
        // After a failed sync, or of a length that cannot fit, the upload is over.
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

    /// Its id.
    pub fn id(&self) -> UploadId {
        self.session.id()
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.session.offset()
    }

    /// The algorithm that runs.
    pub fn algorithm(&self) -> Algorithm {
        self.session.algorithm()
    }

    /// Resolves when this request must not go on, to the reason: for one that waits for its client.
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

    /// What a request that took over makes of the upload: the digest that it became. Waits for that request; `None` where it
    /// makes nothing of it.
    pub fn outcome(&self) -> impl Future<Output = Option<Digest>> + Send + 'static + use<> {
        let (uploads, session) = (Arc::clone(&self.uploads), Arc::clone(&self.session));
        async move {
            session.left_alone().await;
            uploads.finished(session.id(), session.repository())
        }
    }

    async fn body(&self) -> Result<Held<'_>> {
        let body = self.session.hold(&self.uploads).await;
        self.session.check(self.turn)?;
        Ok(body)
    }

    /// Takes in the next bytes; waits while hash and disk are behind, until the upload is cancelled. Other errors than of a lost
    /// turn end the upload.
    pub async fn write(&mut self, mut piece: Bytes) -> Result<()> {
        let mut body = self.body().await?;
        let written = async { step!(self, body, body.write(&mut piece).await) };
        match select(pin!(written), pin!(self.interrupted())).await {
            Either::Left((written, _)) => written,
            Either::Right((reason, _)) => Err(reason),
        }
    }

    /// Remembers where we are.
    pub async fn savepoint(&mut self) -> Result<Savepoint> {
        let mut body = self.body().await?;
        let mark = step!(self, body, body.mark().await)?;
        Ok(self.at(mark))
    }

    /// Remembers where we are, as the place where the bytes of a closing request begin that does not say so itself.
    /// What an earlier one sent from there on is forgotten, unless an answer counted it before this one took the upload:
    /// this is the same, sent again.
    pub async fn savepoint_of_close(&mut self) -> Result<Savepoint> {
        let mut body = self.body().await?;
        if let Some(mark) = body.unanswered().cloned() {
            self.session.begin_take_back(mark.offset());
            self.go_back(&mut body, &mark).await?;
        }
        let mark = step!(self, body, body.mark_close().await)?;
        Ok(self.at(mark))
    }

    fn at(&self, mark: BodyMark) -> Savepoint {
        let upload = self.id();
        Savepoint { upload, mark }
    }

    /// Makes the upload what it was at `savepoint`: what was written since was never received.
    pub async fn rollback(&mut self, savepoint: Savepoint) -> Result<()> {
        let mark = self.mark_of(savepoint);
        let mut body = self.body().await?;
        self.go_back(&mut body, &mark).await
    }

    async fn go_back(&self, body: &mut Body, mark: &BodyMark) -> Result<()> {
        step!(self, body, body.back_to(mark).await)
    }

    fn mark_of(&self, savepoint: Savepoint) -> BodyMark {
        assert!(
            savepoint.upload == self.id(),
            "a savepoint belongs to one upload"
        );
        savepoint.mark
    }

    /// Ends the upload: the bytes are checked against `expected`, on disk and synced. After an error that the upload
    /// outlives, such as [`Error::DigestMismatch`], it is what it was at `back_to`, or unchanged without one; no
    /// other request comes in between. A failure to write or sync a large one ends it. After success it takes no more
    /// bytes, and it ends with the commit of the blob or its drop.
    pub async fn finish(
        &mut self,
        expected: Digest,
        back_to: Option<Savepoint>,
    ) -> Result<FinishedBlob> {
        let back_to = back_to.map(|savepoint| self.mark_of(savepoint));
        let mut body = self.body().await?;
        let ending = Ending::begin(&self.uploads, &self.session, expected)?;
        match self.try_finish(&mut body, ending, expected).await {
            Ok(blob) => Ok(blob),
            Err((error, ending)) => {
                if let Some(mark) = back_to
                    && !body.is_failed()
                    && let Err(error) = self.go_back(&mut body, &mark).await
                {
                    tracing::warn!(upload = %self.id(), %error, "bytes of a close that failed could not be taken back");
                }
                drop(ending);
                Err(error)
            }
        }
    }

    async fn try_finish(
        &self,
        body: &mut Body,
        mut ending: Ending,
        expected: Digest,
    ) -> std::result::Result<FinishedBlob, (Error, Ending)> {
        let pin = self.uploads.leases().pin(&[expected]);
        let stored = step!(self, body, self.check_and_store(body, expected).await);
        let (extent, abandon) = match stored {
            Ok(stored) => stored,
            Err(error) => return Err((error, ending)),
        };
        let length = body.offset();
        // From here on nothing waits: given up in between, the upload would come back at the next open.
        let finished = ending.finished();
        body.abandon();
        if let Err(error) = finished {
            return Err((error, ending));
        }
        Ok(FinishedBlob {
            digest: expected,
            length,
            extent,
            abandon,
            pin,
            listener: Some(Box::new(ending)),
        })
    }

    async fn check_and_store(
        &self,
        body: &mut Body,
        expected: Digest,
    ) -> Result<(Extent, Option<AbandonGuard>)> {
        let found = body.digest(expected.algorithm()).await?;
        if found != expected {
            return Err(Error::DigestMismatch { expected, found });
        }
        if let Some(extent) = self.uploads.stored_intact(&expected).await? {
            body.settle().await;
            return Ok((extent, None));
        }
        self.store(body, expected).await
    }

    async fn store(
        &self,
        body: &mut Body,
        digest: Digest,
    ) -> Result<(Extent, Option<AbandonGuard>)> {
        let pool = self.uploads.segments().pool().clone();
        let threshold = self.uploads.shared().options.spill_threshold_bytes;
        let (digestion, kept) = body.flushed();
        let length = digestion.length();
        let payload = match kept {
            Kept::Memory(pieces) => pieces.clone(),
            // It spilled because it was quiet or memory was short. A segment of its own would stay for good.
            Kept::Spilled(spill) if length <= SMALL_BYTES.min(threshold) => {
                let read = spill.read_back(&pool, digestion).await;
                vec![body.fail(read)?]
            }
            Kept::Spilled(spill) => {
                let finished = spill.finish(digest, digestion).await;
                let guard = finished.is_ok().then(|| spill.hand_over());
                // A sync is not tried twice, so the bytes count as lost.
                return Ok((body.fail(finished)?, guard));
            }
        };
        let (digestion, _) = body.flushed();
        let blob = SmallBlob {
            payload,
            length,
            digest,
            checksums: digestion.table(),
        };
        let appender = self.uploads.segments().appender();
        Ok((appender.append(blob).await?, None))
    }
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

/// An upload on its way to a blob and its commit. Dropped before it is finished, it takes bytes again; dropped after, it
/// ends.
#[derive(Debug)]
struct Ending {
    uploads: Arc<Uploads>,
    session: Arc<Session>,
    digest: Digest,
    finished: bool,
}

impl Ending {
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

impl CommitListener for Ending {
    fn committed(self: Box<Self>) {
        self.uploads.remember(&self.session, self.digest);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.finished {
            self.session.end();
            self.uploads.forget(&self.session);
        } else {
            self.session.reopen();
        }
    }
}
