//! What the registry asks of storage: a [`BlobStore`] for bytes and a [`Catalog`] for names, links and edges.
//!
//! Owns: the two interfaces and their words. `embedded` implements them on the engine; a pair on object
//! storage and a relational database can implement them as well, which is why every read may wait and why a commit is
//! one batch with preconditions instead of locks.
//! Refuses: HTTP, OCI JSON, policy.
//!
//! Invariants every pair keeps: a committed batch is durable when `commit` returns; a [`View`] shows one state
//! throughout; a window of a blob's bytes was verified before it is handed out; an answer that promises existence
//! (finished, linked, leased) keeps the bytes for the pair's grace period.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
pub use tonnage_engine::io::ClassCount;
use tonnage_engine::{Algorithm, Digest};
pub use tonnage_engine::{
    ClientId, ManifestEntry, Origin, Place, Require, UploadClaim, UploadId, UploadSpec,
};

use super::error::{Error, Result};

/// Windows of a blob's bytes, in order; ends early with an error, never with fewer bytes than asked.
pub type Windows = BoxStream<'static, Result<Bytes>>;

/// Bytes that are stored but that no commit names yet. Dropped, they are reclaimed.
#[derive(Debug)]
pub struct Staged {
    /// Their digest.
    pub digest: Digest,
    /// Their count.
    pub length: u64,
    /// What the pair's catalog needs of its blob store to place them.
    pub ticket: Box<dyn Any + Send + Sync>,
}

/// A blob that one state of the catalog has.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// What the pair's blob store needs of its catalog to read it.
    pub ticket: Arc<dyn Any + Send + Sync>,
}

/// Keeps blobs from being collected while it lives.
#[derive(Debug)]
pub struct Pinned(pub Box<dyn Any + Send + Sync>);

/// How fit for work a pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Reads and writes.
    Ready,
    /// Reads only, after a failure that a restart may cure.
    ReadOnly,
    /// Neither.
    Closed,
}

/// Bytes by digest, and uploads.
pub trait BlobStore: Send + Sync + Debug {
    /// A reader of a blob that the pair's catalog found, wherever it is by now; `None` if it is gone. Where clients have to wait for
    /// it, they have their turn one after the other.
    fn open<'a>(
        &'a self,
        found: &'a StoredBlob,
        client: ClientId,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Blob>>>>;
    /// An account for the memory that one client's reads take.
    fn read_account(&self) -> Arc<dyn ReadAccount>;
    /// Begins an upload; cheap until its first byte.
    fn begin(&self, spec: UploadSpec) -> BoxFuture<'_, Result<UploadId>>;
    /// Bytes received so far; [`Error::UploadUnknown`] if the repository has no such upload.
    fn offset<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<u64>>;
    /// Takes the upload for writing. A request whose bytes belong where the upload is takes over from one that is still
    /// there, which finds out by [`Upload::interrupted`] and writes nothing more; one that does not say where they belong gets
    /// [`Error::UploadBusy`]. Waits while the upload becomes a blob.
    fn resume<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
        claim: UploadClaim,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>>>;
    /// The digest that an upload of the repository became a short time ago. Whether the repository still has it is another
    /// question.
    fn finished(&self, id: UploadId, repository: &str) -> Option<Digest>;
    /// Ends the upload without trace.
    fn cancel<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Stages a small content, such as a manifest.
    fn put_small(&self, content: Bytes, algorithm: Algorithm) -> BoxFuture<'_, Result<Staged>>;
    /// Keeps the blob for the grace period although nothing may reference it: its existence was promised.
    fn lease(&self, digest: Digest) -> BoxFuture<'_, Result<()>>;
    /// Keeps blobs, stored or not, from being collected until the pin drops.
    fn pin(&self, digests: &[Digest]) -> Pinned;
    /// Whether the blob's stored bytes are known to be damaged. Pushing it again heals it.
    fn is_damaged(&self, digest: Digest) -> BoxFuture<'_, Result<bool>>;
    /// How fit for work it is.
    fn condition(&self) -> Condition;
    /// How many operations of the disk there were, by what they were for; empty where there is no disk.
    fn io_counts(&self) -> Vec<ClassCount>;
}

/// An open blob; its bytes stay while this lives.
pub trait Blob: Send + Debug {
    /// Its length in bytes.
    fn length(&self) -> u64;
    /// Its bytes in `range`, which must lie inside it. `answer` is what they are for; without one they are dropped at once.
    fn read(&self, range: Range<u64>, answer: Option<&AnswerReads>) -> Windows;
}

/// The memory that one client's answers take, of what all clients share. A client that takes nothing of them gives way to others.
pub trait ReadAccount: Send + Sync + Debug {
    /// Notes that the client took bytes.
    fn progressed(&self);
    /// Resolves once the client has to give way: an answer that it takes nothing of is to be dropped, or all of them.
    fn revoked(&self) -> BoxFuture<'static, ()>;
    /// Notes that one of its answers was dropped; [`ReadAccount::revoked`] tells when that is not enough.
    fn gave_way(&self);
    /// Begins an answer that is read from blobs; an urgent one is small.
    fn answer(&self, urgent: bool) -> AnswerReads;
    /// Waits for memory for another answer; an urgent one is small.
    fn hold(&self, urgent: bool, bytes: usize) -> BoxFuture<'_, Box<dyn HeldMemory>>;
}

/// The reads of one answer, for the pair that made it.
#[derive(Debug, Clone)]
pub struct AnswerReads(pub Arc<dyn Any + Send + Sync>);

/// Memory of an answer, until it drops.
pub trait HeldMemory: Send + Sync + Debug {
    /// Gives back what is beyond `bytes`: the answer is shorter than it might have been.
    fn shrink(&mut self, bytes: usize);
    /// Whether the client is awaited to take the answer, as it is from the beginning. While it is not, it need not give way for it.
    fn set_awaited(&self, awaited: bool);
}

/// A place in an upload to return to.
#[derive(Debug)]
pub struct Savepoint(pub Box<dyn Any + Send + Sync>);

/// An upload held for writing. Dropped, it keeps what it received.
pub trait Upload: Send + Debug {
    /// Bytes received so far.
    fn offset(&self) -> u64;
    /// Resolves when the request must not go on, to the reason: another one took over, or the upload was cancelled.
    fn interrupted(&self) -> BoxFuture<'static, Error>;
    /// What a request that took over made of the upload, once it has: the digest that it became, if it did.
    fn outcome(&self) -> BoxFuture<'static, Option<Digest>>;
    /// Takes in more bytes; returns when there is room for more.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;
    /// Remembers this place.
    fn savepoint(&mut self) -> BoxFuture<'_, Result<Savepoint>>;
    /// Remembers this place as the one where the bytes of a closing request begin. What an earlier close sent from there
    /// on is forgotten, unless an answer counted it before this one took the upload: this is the same, sent again.
    fn savepoint_of_close(&mut self) -> BoxFuture<'_, Result<Savepoint>>;
    /// Forgets what came after the place.
    fn rollback(&mut self, to: Savepoint) -> BoxFuture<'_, Result<()>>;
    /// Ends the upload as `expected`. After an error that it outlives, such as [`Error::DigestMismatch`], it is what
    /// it was at `back_to`, or unchanged without one; no other request comes in between.
    fn finish(
        &mut self,
        expected: Digest,
        back_to: Option<Savepoint>,
    ) -> BoxFuture<'_, Result<Staged>>;
}

/// One change of a batch; [`tonnage_engine::Change`] says what each means.
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "the same words as the engine's, described there"
)]
pub enum Change {
    Place(Staged),
    Link(Digest),
    Unlink(Digest),
    PutManifest(ManifestEntry),
    DeleteManifest(Digest),
    SetTag { tag: String, digest: Digest },
    DeleteTag(String),
}

/// Changes of one repository, applied together or not at all.
#[derive(Debug)]
pub struct Batch {
    /// The repository.
    pub repository: String,
    /// Whether it is created where it is missing.
    pub create_repository: bool,
    /// All must hold.
    pub requires: Vec<Require>,
    /// Applied in order.
    pub changes: Vec<Change>,
    /// Who asked.
    pub origin: Origin,
}

/// Why a batch was not committed.
#[derive(Debug)]
pub enum CommitError {
    /// These preconditions do not hold; nothing changed.
    Unmet(Vec<Require>),
    /// Anything else.
    Failed(Error),
}

/// Names, links and edges.
pub trait Catalog: Send + Sync + Debug {
    /// The state now.
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>>>;
    /// Applies the batch; durable and visible when it returns.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, std::result::Result<(), CommitError>>;
}

/// One state of the catalog. Lists are sorted by bytes; `after` is exclusive.
pub trait View: Send + Sync + Debug {
    /// The repository of that name.
    fn repository<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn RepositoryView>>>>;
    /// Names of repositories.
    fn repositories<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>>;
    /// A blob that is stored; says nothing of who may see it.
    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>>;
    /// Names of repositories that link the blob, at most `limit`, in no promised order.
    fn holders(&self, digest: Digest, limit: usize) -> BoxFuture<'_, Result<Vec<String>>>;
}

/// A repository in one state of the catalog. Lists are sorted by bytes; `after` is exclusive.
pub trait RepositoryView: Send + Sync + Debug {
    /// What a tag points at.
    fn tag<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<Digest>>>;
    /// Its tags.
    fn tags<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>>;
    /// One of its manifests.
    fn manifest(&self, digest: Digest) -> BoxFuture<'_, Result<Option<ManifestEntry>>>;
    /// A blob that it links and that is stored.
    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>>;
    /// Its manifests whose subject is `subject`.
    fn referrers(
        &self,
        subject: Digest,
        after: Option<Digest>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ManifestEntry>>>;
}
