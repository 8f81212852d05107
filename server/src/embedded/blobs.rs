//! Implements [`BlobStore`] on the engine.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use tonnage_engine::vocabulary::{Algorithm, ClientId, Digest, UploadClaim, UploadId, UploadSpec};
use tonnage_engine::{
    BlobInfo, BlobReader, FinishedBlob, HeldBytes, MemoryPriority, Reading, Store,
};

use super::error;
use crate::registry::ports::{
    AnswerReads, Blob, BlobStore, Condition, HeldMemory, Pinned, ReadAccount, Savepoint, Staged,
    StoredBlob, Upload, Windows,
};
use crate::registry::{Error, Result};

#[derive(Debug)]
pub(super) struct StoreBlobs(pub(super) Store);

#[derive(Debug)]
struct Reader(BlobReader);

#[derive(Debug)]
struct Account(tonnage_engine::MemoryAccount);

#[derive(Debug)]
struct Writer(tonnage_engine::Upload);

impl BlobStore for StoreBlobs {
    fn open<'a>(
        &'a self,
        found: &'a StoredBlob,
        client: ClientId,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Blob>>>> {
        let Some(at) = found.ticket.downcast_ref::<BlobInfo>() else {
            unreachable!("a blob that another catalog found was given to this blob store");
        };
        async move {
            let reader = self.0.open_found(&found.digest, at, client).await;
            let reader = reader.map_err(error)?;
            Ok(reader.map(|reader| Box::new(Reader(reader)) as Box<dyn Blob>))
        }
        .boxed()
    }

    fn read_account(&self) -> Arc<dyn ReadAccount> {
        Arc::new(Account(self.0.read_account()))
    }

    fn begin(&self, spec: UploadSpec) -> BoxFuture<'_, Result<UploadId>> {
        async move {
            self.0.admit_upload().await.map_err(error)?;
            self.0.begin_upload(spec).map_err(error)
        }
        .boxed()
    }

    fn uploader<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        future::ready(Ok(self.0.upload_actor(id, repository))).boxed()
    }

    fn offset<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<u64>> {
        let status = self.0.upload_status(id, repository);
        future::ready(
            status
                .map(|status| status.offset)
                .ok_or(Error::UploadUnknown),
        )
        .boxed()
    }

    fn resume<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
        claim: UploadClaim,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>>> {
        async move {
            let upload = self.0.open_upload(id, repository, claim).await;
            Ok(Box::new(Writer(upload.map_err(error)?)) as Box<dyn Upload>)
        }
        .boxed()
    }

    fn finished<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>>> {
        future::ready(Ok(self.0.finished_upload(id, repository))).boxed()
    }

    fn cancel<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<()>> {
        future::ready(self.0.cancel_upload(id, repository).map_err(error)).boxed()
    }

    fn put_small(&self, content: Bytes, algorithm: Algorithm) -> BoxFuture<'_, Result<Staged>> {
        async move {
            Ok(staged(
                self.0.put_small(content, algorithm).await.map_err(error)?,
            ))
        }
        .boxed()
    }

    fn lease(&self, digest: Digest) -> BoxFuture<'_, Result<()>> {
        async move { self.0.lease(&digest).await.map_err(error) }.boxed()
    }

    fn lease_manifest(&self, digest: Digest) -> BoxFuture<'_, Result<()>> {
        async move { self.0.lease_manifest(&digest).await.map_err(error) }.boxed()
    }

    fn pin<'a>(&'a self, digests: &'a [Digest]) -> BoxFuture<'a, Result<Pinned>> {
        async move { Ok(Pinned(Box::new(self.0.pin(digests).await.map_err(error)?))) }.boxed()
    }

    fn is_damaged(&self, digest: Digest) -> BoxFuture<'_, Result<bool>> {
        async move { self.0.is_damaged(&digest).await.map_err(error) }.boxed()
    }

    fn may_be_damaged(&self, digest: &Digest) -> bool {
        self.0.may_be_damaged(digest)
    }

    fn condition(&self) -> BoxFuture<'_, Condition> {
        let condition = if self.0.poisoned().is_some() {
            Condition::ReadOnly
        } else if self.0.disk_space().is_some_and(|space| space.is_low()) {
            Condition::NearlyFull
        } else {
            Condition::Ready
        };
        future::ready(condition).boxed()
    }
}

fn staged(blob: FinishedBlob) -> Staged {
    Staged {
        digest: blob.digest(),
        length: blob.length(),
        ticket: Box::new(blob),
    }
}

impl Blob for Reader {
    fn length(&self) -> u64 {
        self.0.len()
    }

    fn read(&self, range: Range<u64>, answer: Option<&AnswerReads>) -> Windows {
        let stream = match answer {
            None => self.0.read(range),
            Some(AnswerReads(reading)) => match reading.downcast_ref::<Reading>() {
                Some(reading) => self.0.read_for(range, reading.clone()),
                None => unreachable!("an answer of another blob store was given to this one"),
            },
        };
        stream.into_stream().map_err(error).boxed()
    }
}

fn priority(urgent: bool) -> MemoryPriority {
    if urgent {
        MemoryPriority::Urgent
    } else {
        MemoryPriority::Bulk
    }
}

impl ReadAccount for Account {
    fn record_progress(&self) {
        self.0.record_progress();
    }

    fn revoked(&self) -> BoxFuture<'static, ()> {
        self.0.revoked().boxed()
    }

    fn record_drop(&self) {
        self.0.record_drop();
    }

    fn set_mapping_allowed(&self, is_allowed: bool) {
        self.0.set_mapping_allowed(is_allowed);
    }

    fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool {
        self.0.used_unchanged(use_bytes)
    }

    fn load_mapped(&self) -> Option<BoxFuture<'static, bool>> {
        let loading = self.0.load_mapped()?;
        Some(loading.boxed())
    }

    fn answer(&self, urgent: bool) -> AnswerReads {
        AnswerReads(Arc::new(Reading::answer(&self.0, priority(urgent))))
    }

    fn hold(&self, urgent: bool, bytes: usize) -> BoxFuture<'_, Box<dyn HeldMemory>> {
        let holding = self.0.hold(priority(urgent), bytes);
        let boxed = |held| Box::new(held) as Box<dyn HeldMemory>;
        holding.map(boxed).boxed()
    }
}

impl HeldMemory for HeldBytes {
    fn shrink(&mut self, bytes: usize) {
        HeldBytes::shrink(self, bytes);
    }

    fn set_awaited(&self, awaited: bool) {
        if awaited {
            self.unsettle();
        } else {
            self.settle();
        }
    }
}

impl Upload for Writer {
    fn offset(&self) -> u64 {
        self.0.offset()
    }

    fn interrupted(&self) -> BoxFuture<'static, Error> {
        self.0.interrupted().map(error).boxed()
    }

    fn outcome(&self) -> BoxFuture<'static, Option<Digest>> {
        self.0.outcome().boxed()
    }

    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        async move { self.0.write(bytes).await.map_err(error) }.boxed()
    }

    fn savepoint(&mut self) -> BoxFuture<'_, Result<Savepoint>> {
        async move {
            Ok(Savepoint(Box::new(
                self.0.savepoint().await.map_err(error)?,
            )))
        }
        .boxed()
    }

    fn savepoint_of_close(&mut self) -> BoxFuture<'_, Result<Savepoint>> {
        async move {
            let savepoint = self.0.savepoint_of_close().await.map_err(error)?;
            Ok(Savepoint(Box::new(savepoint)))
        }
        .boxed()
    }

    fn rollback(&mut self, to: Savepoint) -> BoxFuture<'_, Result<()>> {
        async move { self.0.rollback(engine_savepoint(to)).await.map_err(error) }.boxed()
    }

    fn finish(
        &mut self,
        expected: Digest,
        back_to: Option<Savepoint>,
    ) -> BoxFuture<'_, Result<Staged>> {
        async move {
            let finished = self.0.finish(expected, back_to.map(engine_savepoint)).await;
            Ok(staged(finished.map_err(error)?))
        }
        .boxed()
    }
}

fn engine_savepoint(savepoint: Savepoint) -> tonnage_engine::Savepoint {
    match savepoint.0.downcast() {
        Ok(savepoint) => *savepoint,
        Err(_) => unreachable!("a savepoint of another blob store was given to this one"),
    }
}
