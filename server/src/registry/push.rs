//! Pushing blobs.
//!
//! Owns: uploads from the client's side: begin, append, close, cancel, and the one-request form.
//! Refuses: chunks out of order; they change nothing and the upload lives on (distribution-spec, "Pushing a blob
//! in chunks").
//!
//! Invariant: a request that is refused leaves the upload as it found it; a connection that breaks leaves what
//! arrived, so that the client can ask for the offset and go on.

use tonnage_engine::{Algorithm, Digest};

use super::ports::{Change, Savepoint, Staged, Upload, UploadId, UploadSpec};
use super::{Error, Registry, Result, Source, Transaction};
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
            actor: push.caller().subject.clone(),
            algorithm,
            length_hint,
            unlisted,
        };
        self.blobs.begin(spec).await
    }

    /// Bytes that an upload has received.
    pub async fn upload_offset(&self, push: &Authorized<Push>, id: UploadId) -> Result<u64> {
        self.blobs.offset(id, push.repository().as_str()).await
    }

    /// Ends an upload without trace.
    pub async fn cancel_upload(&self, push: &Authorized<Push>, id: UploadId) -> Result<()> {
        self.blobs.cancel(id, push.repository().as_str()).await
    }

    /// Appends a body, all of it or, where `chunk` says where it belongs, only there. Returns the new offset.
    pub async fn append_to_upload(
        &self,
        push: &Authorized<Push>,
        id: UploadId,
        chunk: Option<ChunkRange>,
        source: &mut impl Source,
    ) -> Result<u64> {
        let mut upload = self.blobs.resume(id, push.repository().as_str()).await?;
        check_place(&*upload, chunk, source)?;
        // A length that hyper already holds the body to needs no way back.
        let revocable = chunk.is_some() && source.length().is_none();
        receive(&mut *upload, chunk, source, revocable).await?;
        Ok(upload.offset())
    }

    /// Appends a body, if there is one, and ends the upload as `digest`.
    pub async fn close_upload(
        &self,
        push: &Authorized<Push>,
        id: UploadId,
        digest: Digest,
        chunk: Option<ChunkRange>,
        source: &mut impl Source,
    ) -> Result<()> {
        let mut upload = self.blobs.resume(id, push.repository().as_str()).await?;
        check_place(&*upload, chunk, source)?;
        let before = receive(&mut *upload, chunk, source, true).await?;
        match upload.finish(digest).await {
            Ok(staged) => self.link_blob(push, staged).await,
            Err(error) => {
                if let (Error::DigestMismatch { .. }, Some(before)) = (&error, before) {
                    upload.rollback(before).await?;
                }
                Err(error)
            }
        }
    }

    /// A whole blob in one request.
    pub async fn push_blob(
        &self,
        push: &Authorized<Push>,
        digest: Digest,
        source: &mut impl Source,
    ) -> Result<()> {
        // The client never learns the id: when this request ends, however it ends, so does the upload.
        let (algorithm, length) = (digest.algorithm(), source.length());
        let id = self.begin(push, Some(algorithm), length, true).await?;
        self.close_upload(push, id, digest, None, source).await
    }

    async fn link_blob(&self, push: &Authorized<Push>, staged: Staged) -> Result<()> {
        let digest = staged.digest;
        let transaction = Transaction {
            caller: push.caller(),
            repository: push.repository().as_str(),
            create_repository: true,
            requires: Vec::new(),
            changes: vec![Change::Place(staged), Change::Link(digest)],
        };
        Ok(self.commit(transaction).await?)
    }
}

fn check_place(upload: &dyn Upload, chunk: Option<ChunkRange>, source: &impl Source) -> Result<()> {
    let Some(ChunkRange { first, length }) = chunk else {
        return Ok(());
    };
    if first != upload.offset() {
        return Err(Error::OutOfOrder {
            first,
            offset: upload.offset(),
        });
    }
    match source.length() {
        Some(received) if received != length => Err(Error::ChunkLength {
            announced: length,
            received,
        }),
        _ => Ok(()),
    }
}

/// Writes the body. Returns the place before it, if `revocable` and anything came.
async fn receive(
    upload: &mut dyn Upload,
    chunk: Option<ChunkRange>,
    source: &mut impl Source,
    revocable: bool,
) -> Result<Option<Savepoint>> {
    let start = upload.offset();
    let mut before = None;
    while let Some(bytes) = source.next().await? {
        if revocable && before.is_none() {
            before = Some(upload.savepoint().await?);
        }
        upload.write(bytes).await?;
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
