//! The port for bytes.
//!
//! Owns: [`BlobStore`], [`Blob`], [`Upload`] and the tickets that a pair passes between its two halves.
//! Refuses: names and visibility; those are the catalog's.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tonnage_engine::vocabulary::{Algorithm, ClientId, Digest, UploadClaim, UploadId, UploadSpec};

use super::{AnswerReads, ReadAccount};
use crate::registry::error::{Error, Result};

/// Windows of a blob's bytes, in order. The stream has all requested bytes or ends with an error.
pub type Windows = BoxStream<'static, Result<Bytes>>;

/// Bytes that are stored but that no commit names yet. When dropped, they are reclaimed.
#[derive(Debug)]
pub struct Staged {
    /// Their digest.
    pub digest: Digest,
    /// Their count.
    pub length: u64,
    /// Data of the blob store for the catalog of the same pair, which downcasts it. A ticket of another pair is a bug
    /// and panics.
    pub ticket: Box<dyn Any + Send + Sync>,
}

/// A blob that one state of the catalog has.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// Whether nothing else protects it from collection, so that an answer has to lease it.
    pub needs_lease: bool,
    /// Data of the catalog for the blob store of the same pair, which downcasts it. A ticket of another pair is a bug
    /// and panics.
    pub ticket: Arc<dyn Any + Send + Sync>,
}

/// Keeps blobs from being collected until it drops. The drop does not wait.
#[derive(Debug)]
pub struct Pinned(pub Box<dyn Any + Send + Sync>);

/// A position in an upload to return to.
#[derive(Debug)]
pub struct Savepoint(pub Box<dyn Any + Send + Sync>);

/// The condition of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Reads and writes.
    Ready,
    /// Reads, deletes and small writes; uploads are refused until there is space.
    NearlyFull,
    /// Reads only, after a failure. A restart may fix it.
    ReadOnly,
    /// Neither.
    Closed,
}

/// One half of a pair (see the [module](super)): bytes by digest, and uploads.
///
/// # Contract
///
/// - What is staged is durable: a commit that names it needs no further write of the bytes.
/// - A window of a blob's bytes is verified before it is returned.
/// - An answer that promises existence (finished, linked, leased) keeps the bytes for the pair's grace period. A
///   pinned digest is kept until the pin drops. Both also hold for a digest that is stored later.
/// - An upload belongs to one repository. To any other repository it is [`Error::UploadUnknown`].
///
/// # Errors
///
/// Every method may fail as storage does: [`Error::NotAttempted`] (nothing was changed, the call can be repeated),
/// [`Error::Damaged`], [`Error::ReadOnly`] and [`Error::Full`] (writes only), [`Error::Closing`] and
/// [`Error::Internal`]. Methods name what else they return.
pub trait BlobStore: Send + Sync + Debug {
    /// Opens a blob that the pair's catalog found, wherever it is stored by now; `None` if it was collected.
    ///
    /// If opens have to wait, they are scheduled fairly by `client`.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if what is read to open it contradicts its checksum.
    fn open<'a>(
        &'a self,
        found: &'a StoredBlob,
        client: ClientId,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Blob>>>>;

    /// Returns an account for the memory that one client's answers take.
    fn read_account(&self) -> Arc<dyn ReadAccount>;

    /// Begins an upload. It costs little until its first byte, and survives a restart from then on.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyUploads`] if no unfinished upload may be evicted; [`Error::NearlyFull`]; [`Error::NoRoom`] if
    /// the announced length cannot fit.
    fn begin(&self, spec: UploadSpec) -> BoxFuture<'_, Result<UploadId>>;

    /// Returns the subject that began an upload; `None` if the repository has no such upload.
    fn uploader<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>>>;

    /// Returns how many bytes an upload has received.
    ///
    /// # Errors
    ///
    /// [`Error::UploadUnknown`] if the repository has no such upload.
    fn offset<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<u64>>;

    /// Opens the upload for writing. Waits while it becomes a blob.
    ///
    /// A request that begins at the upload's offset takes over from an older one that is still active. For the older
    /// one [`Upload::interrupted`] resolves, and it writes nothing more.
    ///
    /// # Errors
    ///
    /// [`Error::UploadUnknown`] if the repository has no such upload; [`Error::OutOfOrder`] if the claimed position is
    /// not where the upload is; [`Error::UploadBusy`] if another request writes and this one may not take over;
    /// [`Error::NearlyFull`] if the request brings bytes.
    fn resume<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
        claim: UploadClaim,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>>>;

    /// Returns the digest that an upload of the repository became a short time ago, if it is remembered. It does not
    /// say whether the repository still has the blob.
    fn finished<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>>>;

    /// Ends an upload and drops its bytes.
    ///
    /// # Errors
    ///
    /// [`Error::UploadUnknown`] if the repository has no such upload.
    fn cancel<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Stages a small content, such as a manifest.
    fn put_small(&self, content: Bytes, algorithm: Algorithm) -> BoxFuture<'_, Result<Staged>>;

    /// Keeps a blob for the grace period although nothing may reference it: its existence is about to be promised.
    ///
    /// # Errors
    ///
    /// Those of the trait; then nothing may be promised.
    fn lease(&self, digest: Digest) -> BoxFuture<'_, Result<()>>;

    /// Keeps a manifest in its repositories for the grace period although nothing else may keep it there: its existence
    /// is about to be promised.
    ///
    /// # Errors
    ///
    /// Those of the trait; then nothing may be promised.
    fn lease_manifest(&self, digest: Digest) -> BoxFuture<'_, Result<()>>;

    /// Keeps blobs, stored or not, from being collected until the pin drops.
    ///
    /// # Errors
    ///
    /// Those of the trait; then nothing is pinned.
    fn pin<'a>(&'a self, digests: &'a [Digest]) -> BoxFuture<'a, Result<Pinned>>;

    /// Returns whether the blob's stored bytes are known to be damaged. A push of the same content repairs it.
    fn is_damaged(&self, digest: Digest) -> BoxFuture<'_, Result<bool>>;

    /// Returns whether [`Self::is_damaged`] may be true, without waiting.
    fn may_be_damaged(&self, digest: &Digest) -> bool;

    /// Returns the condition of the pair. A pair that cannot be reached is [`Condition::Closed`].
    fn condition(&self) -> BoxFuture<'_, Condition>;
}

/// An open blob. Its bytes stay until this drops, whatever is deleted meanwhile.
pub trait Blob: Send + Debug {
    /// Returns its length in bytes.
    fn length(&self) -> u64;

    /// Reads its bytes in `range`, which must lie inside it. Windows take memory of `answer`; without one, the caller
    /// drops each before it asks for the next.
    ///
    /// # Errors
    ///
    /// The stream ends with [`Error::Damaged`] where bytes contradict their checksum, before any of them is returned.
    fn read(&self, range: Range<u64>, answer: Option<&AnswerReads>) -> Windows;
}

/// An upload held for writing. When dropped, it keeps what it received.
///
/// # Contract
///
/// - One request writes at a time. After [`Upload::interrupted`] has resolved, no method of this one changes anything.
/// - Received bytes stay received unless a savepoint is returned to, the upload is cancelled, or a crash loses what
///   was not durable yet.
/// - The futures may be dropped. After a dropped [`Upload::write`], a part of its bytes may be received;
///   [`Upload::offset`] counts it. A dropped [`Upload::rollback`] discards all of the bytes or none.
/// - A dropped [`Upload::finish`] stages nothing, and the upload survives. Its bytes are as before, or as at the given
///   savepoint.
///
/// # Errors
///
/// Those of [`BlobStore`], and from every method that writes: [`Error::UploadBusy`] after another request took over,
/// [`Error::UploadUnknown`] after the upload ended.
pub trait Upload: Send + Debug {
    /// Returns how many bytes it has received.
    fn offset(&self) -> u64;

    /// Resolves when the request must not continue, to the reason: another one took over, or the upload was cancelled.
    fn interrupted(&self) -> BoxFuture<'static, Error>;

    /// Resolves once a request that took over has left the upload, to the digest that the upload became, if it did.
    fn outcome(&self) -> BoxFuture<'static, Option<Digest>>;

    /// Writes more bytes. Returns when there is room for more.
    ///
    /// # Errors
    ///
    /// Those of the trait. A failed write may end the upload, unless it was [`Error::NotAttempted`].
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Creates a savepoint of this position.
    fn savepoint(&mut self) -> BoxFuture<'_, Result<Savepoint>>;

    /// Creates a savepoint where the bytes of a closing request begin. Bytes that an earlier close sent after this
    /// position are discarded, because this is the same close, sent again. They stay if an answer has counted them
    /// before this request opened the upload.
    fn savepoint_of_close(&mut self) -> BoxFuture<'_, Result<Savepoint>>;

    /// Discards the bytes after the position.
    fn rollback(&mut self, to: Savepoint) -> BoxFuture<'_, Result<()>>;

    /// Ends the upload as `expected`; its bytes are staged.
    ///
    /// After an error that the upload survives, it is as it was at `back_to`, or unchanged without one; no other
    /// request comes in between.
    ///
    /// # Errors
    ///
    /// [`Error::DigestMismatch`] if the bytes have another digest; the upload survives it.
    fn finish(
        &mut self,
        expected: Digest,
        back_to: Option<Savepoint>,
    ) -> BoxFuture<'_, Result<Staged>>;
}
