//! Pushes blobs.
//!
//! Owns: the operations of uploads: begin, append, close, cancel, and the upload in one request.
//! Refuses: chunks out of order; they change nothing (distribution-spec, "Pushing a blob in chunks").
//!
//! Invariants: a rejected request does not change the upload. If a connection fails, the received bytes stay, so the
//! client can continue at the offset, or close the upload again with the same bytes. The newest request that is in
//! order writes, and the previous one ends. A repeated close has the same answer.

use tonnage_engine::vocabulary::{
    Algorithm, Batch, Change, Digest, UploadClaim, UploadId, UploadPosition, UploadSpec,
};

use super::ports::{Savepoint, Staged, Upload};
use super::{Error, Registry, Result, Source, origin};
use crate::access::{Authorized, Push};
use crate::oci::ChunkRange;

impl Registry {
    /// Begins an upload.
    pub async fn begin_upload(
        &self,
        push: &Authorized<Push>,
        algorithm: Option<Algorithm>,
        length_hint: Option<u64>,
    ) -> Result<UploadId> {
        self.begin(push, algorithm, length_hint, false).await
    }

    async fn begin(
        &self,
        push: &Authorized<Push>,
        algorithm: Option<Algorithm>,
        length_hint: Option<u64>,
        unlisted: bool,
    ) -> Result<UploadId> {
        let spec = UploadSpec {
            repository: push.repository().as_str().to_owned(),
            actor: push.requester().caller.subject.clone(),
            algorithm,
            length_hint,
            unlisted,
        };
        self.blobs.begin(spec).await
    }

    /// Returns how many bytes an upload has received.
    pub async fn upload_offset(&self, push: &Authorized<Push>, id: UploadId) -> Result<u64> {
        self.require_own(push, id).await?;
        self.blobs.offset(id, push.repository().as_str()).await
    }

    /// Fails if another subject began the upload: its name is all that is needed to continue it.
    async fn require_own(&self, push: &Authorized<Push>, id: UploadId) -> Result<()> {
        let uploader = self.blobs.uploader(id, push.repository().as_str());
        let subject = &push.requester().caller.subject;
        match uploader.await? {
            Some(uploader) if uploader != *subject => Err(Error::UploadUnknown),
            Some(_) | None => Ok(()),
        }
    }

    /// Cancels an upload and discards its bytes.
    pub async fn cancel_upload(&self, push: &Authorized<Push>, id: UploadId) -> Result<()> {
        self.require_own(push, id).await?;
        self.blobs.cancel(id, push.repository().as_str()).await
    }

    /// Appends a body and returns the new offset. If there is a `chunk`, the body must have exactly that range.
    /// `algorithm` is that of the digest, if the request names it.
    pub async fn append_to_upload(
        &self,
        push: &Authorized<Push>,
        id: UploadId,
        chunk: Option<ChunkRange>,
        algorithm: Option<Algorithm>,
        source: &mut impl Source,
    ) -> Result<u64> {
        let position = chunk.map_or(UploadPosition::Anywhere, |chunk| {
            UploadPosition::At(chunk.first)
        });
        let claim = UploadClaim {
            client: source.client(),
            position,
            algorithm,
            brings_bytes: source.length() != Some(0),
            announced: source.length(),
        };
        let mut upload = self.resume_upload(push, id, chunk, claim, source).await?;
        // hyper enforces the announced length, so no savepoint is needed.
        let rollback_to = if chunk.is_some() && source.length().is_none() {
            RollbackTo::Current
        } else {
            RollbackTo::None
        };
        receive_body(&mut *upload, chunk, source, rollback_to).await?;
        Ok(upload.offset())
    }

    /// Appends a body, if there is one, and finishes the upload as `digest`. A client that lost the answer gets the
    /// same one when it repeats the request.
    pub async fn close_upload(
        &self,
        push: &Authorized<Push>,
        id: UploadId,
        digest: Digest,
        chunk: Option<ChunkRange>,
        source: &mut impl Source,
    ) -> Result<()> {
        let claim = UploadClaim {
            client: source.client(),
            position: chunk.map_or(UploadPosition::End, |chunk| UploadPosition::At(chunk.first)),
            algorithm: Some(digest.algorithm()),
            // Without bytes it only finishes what was received.
            brings_bytes: source.length() != Some(0),
            announced: source.length(),
        };
        let upload = match self.resume_upload(push, id, chunk, claim, source).await {
            Err(Error::UploadUnknown) => return self.repeat_close(push, id, digest, source).await,
            taken => taken?,
        };
        self.receive_and_finish(push, upload, digest, chunk, source)
            .await
    }

    /// Appends a body to an upload that the request has, and finishes it.
    async fn receive_and_finish(
        &self,
        push: &Authorized<Push>,
        mut upload: Box<dyn Upload>,
        digest: Digest,
        chunk: Option<ChunkRange>,
        source: &mut impl Source,
    ) -> Result<()> {
        let rollback_to = if chunk.is_some() {
            RollbackTo::Current
        } else {
            RollbackTo::LastClose
        };
        let before = receive_body(&mut *upload, chunk, source, rollback_to).await?;
        match upload.finish(digest, before).await {
            Ok(staged) => self.link_blob(push, staged).await,
            // All of this request had arrived when another one took over, which is most likely the same one, sent
            // again.
            Err(Error::UploadBusy) if upload.outcome().await == Some(digest) => {
                let promised = self
                    .lease_linked(push.repository().as_str(), digest)
                    .await?;
                promised.map(drop).ok_or(Error::UploadBusy)
            }
            Err(error) => Err(error),
        }
    }

    /// Answers a close whose upload was finished by an earlier one.
    async fn repeat_close(
        &self,
        push: &Authorized<Push>,
        id: UploadId,
        digest: Digest,
        source: &mut impl Source,
    ) -> Result<()> {
        let repository = push.repository().as_str();
        let became = self.blobs.finished(id, repository).await?;
        if became != Some(digest)
            || self.blobs.is_damaged(digest).await?
            || self.lease_linked(repository, digest).await?.is_none()
        {
            return Err(Error::UploadUnknown);
        }
        // The bytes are stored already. They are read, because some clients send the whole body before they read the
        // answer.
        while source.next().await?.is_some() {}
        Ok(())
    }

    /// Opens the upload, unless the length of the body contradicts `chunk`.
    async fn resume_upload(
        &self,
        push: &Authorized<Push>,
        id: UploadId,
        chunk: Option<ChunkRange>,
        claim: UploadClaim,
        source: &impl Source,
    ) -> Result<Box<dyn Upload>> {
        self.require_own(push, id).await?;
        let repository = push.repository().as_str();
        if let (Some(ChunkRange { first, length }), Some(received)) = (chunk, source.length())
            && received != length
        {
            // Checked first, because a rejected request must not take over.
            let offset = self.blobs.offset(id, repository).await?;
            return Err(if first == offset {
                Error::ChunkLength {
                    announced: length,
                    received,
                }
            } else {
                Error::OutOfOrder { first, offset }
            });
        }
        self.blobs.resume(id, repository, claim).await
    }

    /// Receives a whole blob in one request.
    pub async fn push_blob(
        &self,
        push: &Authorized<Push>,
        digest: Digest,
        source: &mut impl Source,
    ) -> Result<()> {
        // The client does not know the id, so the upload ends with this request in every case.
        let (algorithm, length) = (digest.algorithm(), source.length());
        let id = self.begin(push, Some(algorithm), length, true).await?;
        let claim = UploadClaim {
            client: source.client(),
            position: UploadPosition::End,
            algorithm: Some(algorithm),
            // It was admitted when it began. A refusal now would leave the upload.
            brings_bytes: false,
            announced: None,
        };
        let upload = self.resume_upload(push, id, None, claim, source).await?;
        self.receive_and_finish(push, upload, digest, None, source)
            .await
    }

    async fn link_blob(&self, push: &Authorized<Push>, staged: Staged) -> Result<()> {
        let batch = Batch {
            repository: push.repository().as_str().to_owned(),
            create_repository: true,
            origin: origin(push.requester()),
            requires: Vec::new(),
            changes: vec![Change::Link(staged.digest)],
            staged: vec![staged],
        };
        Ok(self.catalog.commit(batch).await?)
    }
}

/// The position to which an upload returns if the request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RollbackTo {
    /// None: received bytes stay.
    None,
    /// The current position.
    Current,
    /// The position at which the last closing request began, if that had no answer.
    LastClose,
}

/// Writes the body, unless the request is interrupted while it waits for its client. Returns the savepoint before the
/// body, if there is one and anything was received.
async fn receive_body(
    upload: &mut dyn Upload,
    chunk: Option<ChunkRange>,
    source: &mut impl Source,
    rollback_to: RollbackTo,
) -> Result<Option<Savepoint>> {
    let mut start = upload.offset();
    let mut before = None;
    let mut interrupted = upload.interrupted();
    loop {
        let piece = tokio::select! {
            biased;
            piece = source.next() => piece?,
            reason = &mut interrupted => return Err(reason),
        };
        let Some(bytes) = piece else {
            break;
        };
        if before.is_none() {
            before = match rollback_to {
                RollbackTo::None => None,
                RollbackTo::Current => Some(upload.savepoint().await?),
                RollbackTo::LastClose => Some(upload.savepoint_of_close().await?),
            };
            start = if before.is_some() {
                upload.offset()
            } else {
                start
            };
        }
        if let Err(error) = upload.write(bytes).await {
            if let Some(before) = before {
                // If the rollback fails, the upload has ended or another request has it, which then decides about these
                // bytes.
                upload.rollback(before).await.unwrap_or_default();
            }
            return Err(error);
        }
        if chunk.is_some_and(|chunk| upload.offset() - start > chunk.length) {
            break;
        }
    }
    let received = upload.offset() - start;
    match chunk {
        Some(chunk) if chunk.length != received => {
            if let Some(before) = before {
                upload.rollback(before).await?;
            }
            Err(Error::ChunkLength {
                announced: chunk.length,
                received,
            })
        }
        _ => Ok(before),
    }
}
