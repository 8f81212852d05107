//! All unfinished uploads of a store.
//!
//! Owns: [`Uploads`]: beginning, finding, ending and expiring them. Refuses: what one upload does (`session`,
//! `request`), and which one is ended for another (`eviction`).
//!
//! Invariants: their number is bounded. An upload is found only through its own repository. No lock is held across an
//! I/O except an upload's own.

use std::sync::Arc;
use std::time::Duration;

use super::body::Body;
use super::finished::Finished;
use super::request::Upload;
use super::session::Session;
use super::session_table::SessionTable;
use super::shared::{Shared, UploadIdentity};
use super::space::EvictionState;
use super::staging::StagingBudget;
use super::watermark::Measurement;
use super::{Existing, UploadStatus};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::io::{Directory, Env};
use crate::lease::Leases;
use crate::limits::{ORIGIN_BYTES_MAX, REPOSITORY_NAME_BYTES_MAX};
use crate::memory::Reading;
use crate::options::Options;
use crate::segment::{BlobReader, Segments};
use crate::sync::Mutex;
use crate::vocabulary::{ClientId, UploadClaim, UploadId, UploadSpec};

/// The uploads of an open store.
#[derive(Debug)]
pub(crate) struct Uploads {
    shared: Arc<Shared>,
    leases: Arc<Leases>,
    existing: Arc<dyn Existing>,
    sessions: Arc<SessionTable>,
    finished: Mutex<Finished>,
}

impl Uploads {
    /// Creates an empty set of uploads, with their logs in `dir`.
    pub(crate) fn new(
        env: Env,
        dir: Directory,
        segments: Arc<Segments>,
        leases: Arc<Leases>,
        existing: Arc<dyn Existing>,
        options: &Options,
    ) -> Arc<Self> {
        let staging = StagingBudget::new(options.staging_budget_bytes as u64);
        let options = options.clone();
        let sessions = Arc::<SessionTable>::default();
        let shared = Arc::new(Shared {
            env,
            dir,
            segments,
            options,
            staging,
            evictions: EvictionState::default(),
            measurement: Measurement::default(),
            sessions: Arc::downgrade(&sessions),
            held: Arc::default(),
        });
        Arc::new(Self {
            shared,
            leases,
            existing,
            sessions,
            finished: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.shared.env.clock.monotonic()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn table(&self) -> &SessionTable {
        &self.sessions
    }

    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.shared.segments
    }

    /// Returns where the store has `digest`, unless it is damaged there. All of it is read, because the bytes received
    /// from `client` are dropped for it: another exception to the rule that a commit's cost does not depend on the size
    /// (D9).
    pub(super) async fn stored_intact(
        &self,
        digest: &Digest,
        client: ClientId,
    ) -> Result<Option<Extent>> {
        let damaged = self.segments().damaged();
        let mut stored = self.existing.stored(*digest).await;
        while let Some(extent) = stored
            && !damaged.contains(digest, &extent)
        {
            let opened = self.segments().try_open_blob(*digest, extent, client);
            let read = match opened.await {
                Ok(reader) => Self::read_through(reader).await,
                Err(failure) => {
                    let now = self.existing.stored(*digest).await;
                    if now != stored {
                        // Compaction moved it meanwhile.
                        stored = now;
                        continue;
                    }
                    Err(self.segments().mark(failure, *digest, extent))
                }
            };
            match read {
                // In doubt it must not count as stored, or the bytes could be lost with a 201.
                Err(error) if error.is_not_attempted() => return Err(error),
                // Any other failure is marked as damage.
                Ok(()) | Err(_) => break,
            }
        }
        Ok(stored.filter(|extent| !damaged.contains(digest, extent)))
    }

    async fn read_through(reader: BlobReader) -> Result<()> {
        let mut stream = reader.read_for(0..reader.len(), Reading::content(reader.len()));
        while stream.next().await?.is_some() {}
        Ok(())
    }

    /// Returns the number of unfinished uploads.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Begins an upload. It has no file until its bytes outgrow memory. If there are as many uploads as may be, an idle
    /// one is ended.
    pub(crate) fn begin(&self, spec: UploadSpec) -> Result<UploadId> {
        let (length, max) = (
            spec.repository.len() as u64,
            REPOSITORY_NAME_BYTES_MAX as u64,
        );
        if length > max {
            return Err(Error::TooLarge {
                what: "repository name",
                length,
                max,
            });
        }
        let mut random = [0; 16];
        self.shared.env.rng.fill(&mut random);
        let id = UploadId::from_random(random);
        let actor = spec
            .actor
            .get(..spec.actor.floor_char_boundary(ORIGIN_BYTES_MAX));
        let identity = UploadIdentity {
            id,
            repository: spec.repository,
            actor: actor.unwrap_or_default().to_owned(),
            created_unix_ms: self.shared.env.clock.wall_unix_ms(),
        };
        let algorithm = spec.algorithm.unwrap_or(Algorithm::Sha256);
        let body = Body::new(
            Arc::clone(&self.shared),
            identity.clone(),
            algorithm,
            spec.length_hint,
        );
        let max = self.shared.options.uploads_max;
        let session = self.session(identity, body, spec.unlisted);
        let mut evicted = Vec::new();
        let added = self
            .sessions
            .add_within(session, max, self.now(), &mut evicted);
        for ended in evicted {
            tracing::debug!(upload = %ended.id(), repository = ended.repository(), "an idle upload was ended for a new one");
            ended.abandon();
        }
        added.map(|()| id)
    }

    /// Adds an upload of before the restart.
    pub(super) fn add(&self, identity: UploadIdentity, body: Body, unlisted: bool) {
        self.sessions.add(self.session(identity, body, unlisted));
    }

    fn session(&self, identity: UploadIdentity, body: Body, unlisted: bool) -> Arc<Session> {
        Arc::new(Session::new(identity, unlisted, body, self.now()))
    }

    fn find(&self, id: UploadId, repository: &str) -> Option<Arc<Session>> {
        self.sessions.find(id, repository)
    }

    /// Notes that a request took the session or released it.
    pub(super) fn note(&self, session: &Session) {
        self.sessions.note(session);
    }

    /// Returns how far an upload has got; `None` if the repository has no such upload.
    pub(crate) fn status(&self, id: UploadId, repository: &str) -> Option<UploadStatus> {
        Some(self.find(id, repository)?.status())
    }

    /// Returns the actor that began an upload; `None` if the repository has no such upload.
    pub(crate) fn actor(&self, id: UploadId, repository: &str) -> Option<String> {
        Some(self.find(id, repository)?.actor().to_owned())
    }

    /// Opens an upload for a request, which takes the turn from the one before if it may
    /// ([`UploadPosition`](crate::vocabulary::UploadPosition)).
    ///
    /// Waits for a step that is under way, never for a client. If the upload is becoming a blob, it waits for the
    /// outcome.
    ///
    /// # Errors
    /// [`Error::NearlyFull`] if the request brings bytes and the disk is nearly full; the upload is unchanged, and
    /// the turn stays with the request before.
    pub(crate) async fn open(
        self: &Arc<Self>,
        id: UploadId,
        repository: &str,
        claim: UploadClaim,
    ) -> Result<Upload> {
        let session = self.find(id, repository).ok_or(Error::UnknownUpload)?;
        let _waiting = WaitGuard::begin(self, &session);
        if claim.brings_bytes {
            self.admit().await?;
        }
        loop {
            let changed = session.changed();
            let turn = {
                let mut body = session.hold(self).await;
                session.claim(&claim, &mut body, self.now())?
            };
            match turn {
                Some(turn) => {
                    return Ok(Upload::new(Arc::clone(self), Arc::clone(&session), turn));
                }
                None => changed.await,
            }
        }
    }

    /// Cancels an upload and drops its bytes, even while a request writes to it; that request then finds it unknown. A
    /// step under way drops the bytes at its end. After a crash before that, the upload may stay until it expires.
    pub(crate) fn cancel(&self, id: UploadId, repository: &str) -> Result<()> {
        let session = self.find(id, repository).ok_or(Error::UnknownUpload)?;
        if !session.cancel() {
            return Err(Error::UnknownUpload);
        }
        self.forget(&session);
        Ok(())
    }

    /// Removes an ended session from the table and drops its bytes.
    pub(super) fn forget(&self, session: &Session) {
        self.sessions.remove(session);
        session.abandon();
    }

    /// Remembers that the upload durably became `digest`.
    pub(super) fn remember(&self, session: &Session, digest: Digest) {
        let (id, repository) = (session.id(), session.repository());
        let mut finished = self.finished.lock();
        if !session.is_unlisted() {
            finished.add(id, repository, digest, self.now());
        }
    }

    /// Returns the digest that an upload became a short time ago, if the repository had such an upload.
    pub(crate) fn finished(&self, id: UploadId, repository: &str) -> Option<Digest> {
        let now = self.now();
        self.finished.lock().get(id, repository, now)
    }

    /// Drops uploads that were idle for the TTL at `now` (monotonic) and returns how many.
    pub(crate) fn expire(&self, now: Duration) -> usize {
        self.finished.lock().expire(now);
        let Some(since) = now.checked_sub(self.shared.options.upload_ttl) else {
            return 0;
        };
        let expired = self.sessions.select(|session| session.expire(since));
        expired.iter().map(|session| self.forget(session)).count()
    }

    /// Makes everything received survive a clean stop, and frees each descriptor for the next upload.
    ///
    /// # Errors
    /// The first one, after all uploads were tried. A lack of descriptors or space is no error: the upload
    /// only loses what is not on disk yet.
    pub(crate) async fn checkpoint_all(&self) -> Result<()> {
        let all = self.sessions.select(|_| true);
        let mut outcome = Ok(());
        for open in [true, false] {
            for session in &all {
                let mut body = session.hold(self).await;
                if body.is_open() != open {
                    continue;
                }
                session.keep_answered(&mut body);
                let why = match body.suspend().await {
                    Ok(true) => continue,
                    Ok(false) => "too many files of blobs are open".to_owned(),
                    Err(error) if error.is_not_attempted() || error.is_no_space() => {
                        error.to_string()
                    }
                    Err(error) => {
                        outcome = outcome.and(Err(error));
                        continue;
                    }
                };
                tracing::warn!(upload = %session.id(), repository = session.repository(), %why, "the last bytes of an upload are lost; its client sends them again");
            }
        }
        outcome
    }
}

/// A request that waits for its turn, until it drops.
#[derive(Debug)]
struct WaitGuard<'a> {
    uploads: &'a Uploads,
    session: &'a Session,
}

impl<'a> WaitGuard<'a> {
    fn begin(uploads: &'a Uploads, session: &'a Session) -> Self {
        session.begin_wait();
        Self { uploads, session }
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.session.end_wait();
        self.uploads.note(self.session);
    }
}
