//! All unfinished uploads of a store.
//!
//! Owns: [`Uploads`]: beginning, finding, ending and expiring them. Refuses: what one upload does (`session`).
//!
//! Invariants: their number is bounded; an upload is found only through its own repository; no lock is held
//! across an I/O but an upload's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::body::{Body, Shared, Subject};
use super::digestion::Digestion;
use super::session::Upload;
use super::staging::StagingBudget;
use super::{Existing, UploadId, UploadSpec, UploadStatus};
use crate::batch::FinishedBlob;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::io::{Directory, Env};
use crate::lease::Leases;
use crate::limits::{ORIGIN_BYTES_MAX, REPOSITORY_NAME_BYTES_MAX, SMALL_CONTENT_BYTES};
use crate::options::Options;
use crate::segment::{Segments, SmallBlob};
use crate::sync::Mutex;

/// The uploads of an open store.
#[derive(Debug)]
pub struct Uploads {
    shared: Arc<Shared>,
    leases: Arc<Leases>,
    existing: Arc<dyn Existing>,
    sessions: Mutex<HashMap<UploadId, Arc<Session>>>,
}

/// One upload as others see it.
#[derive(Debug)]
pub(super) struct Session {
    subject: Subject,
    unlisted: bool,
    body: Arc<tokio::sync::Mutex<Body>>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    offset: u64,
    algorithm: Algorithm,
    at: Duration,
    hold: Hold,
}

/// What becomes of the bytes, decided in one place for the request that writes and the one that cancels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Nobody writes: who holds the body decides.
    Free,
    /// A request writes.
    Writing,
    /// A request writes and must put the bytes away: the upload is not found any more.
    Cancelled,
    /// It became a blob.
    Finished,
}

impl Session {
    pub(super) fn id(&self) -> UploadId {
        self.subject.id
    }

    /// Whether nobody can come back for it.
    pub(super) fn is_unlisted(&self) -> bool {
        self.unlisted
    }

    /// A request begins to write.
    fn taken(&self) {
        self.seen.lock().hold = Hold::Writing;
    }

    /// The request that writes ends; whether the bytes are to be put away.
    pub(super) fn released(&self) -> bool {
        let mut seen = self.seen.lock();
        let cancelled = seen.hold == Hold::Cancelled;
        if seen.hold == Hold::Writing {
            seen.hold = Hold::Free;
        }
        cancelled
    }

    /// An error if the upload was cancelled under the request that writes.
    pub(super) fn check(&self) -> Result<()> {
        match self.seen.lock().hold {
            Hold::Cancelled => Err(Error::UnknownUpload),
            Hold::Free | Hold::Writing | Hold::Finished => Ok(()),
        }
    }

    /// The request that writes made a blob of it, unless it was cancelled before.
    pub(super) fn finish(&self) -> Result<()> {
        let mut seen = self.seen.lock();
        if seen.hold == Hold::Cancelled {
            return Err(Error::UnknownUpload);
        }
        seen.hold = Hold::Finished;
        Ok(())
    }

    /// Cancels it under the request that writes: `None` if there is none.
    fn cancel_under_writer(&self) -> Option<Result<()>> {
        let mut seen = self.seen.lock();
        match seen.hold {
            Hold::Free => None,
            Hold::Writing => {
                seen.hold = Hold::Cancelled;
                Some(Ok(()))
            }
            Hold::Cancelled | Hold::Finished => Some(Err(Error::UnknownUpload)),
        }
    }

    /// Notes how far the upload is, for those who do not hold it.
    pub(super) fn seen(&self, uploads: &Uploads, body: &Body) {
        let mut seen = self.seen.lock();
        seen.offset = body.offset();
        seen.at = uploads.shared.env.clock.monotonic();
    }
}

impl Uploads {
    /// No uploads yet. Their logs are in `dir`.
    pub fn new(
        env: Env,
        dir: Directory,
        segments: Arc<Segments>,
        leases: Arc<Leases>,
        existing: Arc<dyn Existing>,
        options: &Options,
    ) -> Arc<Self> {
        let staging = StagingBudget::new(options.staging_budget_bytes as u64);
        let options = options.clone();
        let shared = Arc::new(Shared {
            env,
            dir,
            segments,
            options,
            staging,
        });
        Arc::new(Self {
            shared,
            leases,
            existing,
            sessions: Mutex::default(),
        })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.shared.segments
    }

    /// Where the store has `digest`, unless it is known to be damaged there.
    pub(super) fn stored_intact(&self, digest: &Digest) -> Option<Extent> {
        let extent = self.existing.stored(digest)?;
        (!self.segments().damaged().contains(digest, &extent)).then_some(extent)
    }

    /// Unfinished uploads.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins an upload. No file is made before its bytes outgrow memory.
    pub fn begin(&self, spec: UploadSpec) -> Result<UploadId> {
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
        let subject = Subject {
            id,
            repository: spec.repository,
            actor: actor.unwrap_or_default().to_owned(),
            created_unix_ms: self.shared.env.clock.wall_unix_ms(),
        };
        let algorithm = spec.algorithm.unwrap_or(Algorithm::Sha256);
        let body = Body::new(
            Arc::clone(&self.shared),
            subject.clone(),
            algorithm,
            spec.length_hint,
        );
        let max = self.shared.options.uploads_max;
        let session = self.session(subject, body, spec.unlisted);
        let mut sessions = self.sessions.lock();
        // Counted and added under one lock: two that come together do not both take the last place.
        if sessions.len() >= max {
            return Err(Error::TooManyUploads { max });
        }
        sessions.insert(id, session);
        Ok(id)
    }

    /// Takes in an upload that was there before the stop.
    pub(super) fn add(&self, subject: Subject, body: Body, unlisted: bool) {
        let session = self.session(subject, body, unlisted);
        self.sessions.lock().insert(session.id(), session);
    }

    fn session(&self, subject: Subject, body: Body, unlisted: bool) -> Arc<Session> {
        let at = self.shared.env.clock.monotonic();
        let seen = Seen {
            offset: body.offset(),
            algorithm: body.algorithm(),
            at,
            hold: Hold::Free,
        };
        let body = Arc::new(tokio::sync::Mutex::new(body));
        Arc::new(Session {
            subject,
            unlisted,
            body,
            seen: Mutex::new(seen),
        })
    }

    fn find(&self, id: UploadId, repository: &str) -> Option<Arc<Session>> {
        let sessions = self.sessions.lock();
        let session = sessions
            .get(&id)
            .filter(|session| session.subject.repository == repository);
        session.map(Arc::clone)
    }

    /// How far an upload has got; `None` if the repository has no such upload.
    pub fn status(&self, id: UploadId, repository: &str) -> Option<UploadStatus> {
        let session = self.find(id, repository)?;
        let seen = session.seen.lock();
        Some(UploadStatus {
            offset: seen.offset,
            algorithm: seen.algorithm,
            actor: session.subject.actor.clone(),
            created_unix_ms: session.subject.created_unix_ms,
        })
    }

    /// Opens an upload for writing, alone.
    pub fn open(self: &Arc<Self>, id: UploadId, repository: &str) -> Result<Upload> {
        let session = self.find(id, repository).ok_or(Error::UnknownUpload)?;
        let body = Arc::clone(&session.body)
            .try_lock_owned()
            .map_err(|_busy| Error::UploadBusy)?;
        session.taken();
        let upload = Upload::new(Arc::clone(self), session, body);
        // It may have ended between finding and locking it.
        if self.find(id, repository).is_none() {
            return Err(Error::UnknownUpload);
        }
        Ok(upload)
    }

    /// Ends an upload and drops its bytes. A request that writes to it finds it unknown at its next piece and puts them
    /// away: a client that gave up on a slow request cancels while we still wait for that request's bytes. A crash before
    /// it got there may leave the upload to its expiry.
    pub async fn cancel(&self, id: UploadId, repository: &str) -> Result<()> {
        let session = self.find(id, repository).ok_or(Error::UnknownUpload)?;
        let body = session.body.try_lock();
        let mut body = match body {
            Ok(body) => body,
            Err(_busy) => match session.cancel_under_writer() {
                Some(outcome) => {
                    self.forget(id);
                    return outcome;
                }
                // Its writer is just leaving, or it is being recorded: nothing that waits for a client.
                None => session.body.lock().await,
            },
        };
        // Nothing waits between forgetting and abandoning: given up in between, the upload would come back at the next open.
        body.settle().await;
        self.forget(id).ok_or(Error::UnknownUpload)?;
        body.abandon();
        Ok(())
    }

    pub(super) fn forget(&self, id: UploadId) -> Option<Arc<Session>> {
        self.sessions.lock().remove(&id)
    }

    /// Drops uploads that were idle for the TTL at `now` (monotonic) and returns how many.
    pub fn expire(&self, now: Duration) -> usize {
        let ttl = self.shared.options.upload_ttl;
        let all: Vec<_> = self.sessions.lock().values().map(Arc::clone).collect();
        let idle = |session: &&Arc<Session>| now.saturating_sub(session.seen.lock().at) >= ttl;
        let mut expired = 0;
        for session in all.iter().filter(idle) {
            // One that is busy is not idle, nor is one that was written to since we looked.
            if let Ok(mut body) = session.body.try_lock()
                && idle(&session)
            {
                self.forget(session.id());
                body.abandon();
                expired += 1;
            }
        }
        expired
    }

    /// Makes all that was received survive a clean stop. Uploads that a request still writes to keep their last
    /// checkpoint. The first error is returned after all were tried.
    pub async fn checkpoint_all(&self) -> Result<()> {
        let all: Vec<_> = self.sessions.lock().values().map(Arc::clone).collect();
        let mut outcome = Ok(());
        for session in all {
            match session.body.try_lock() {
                Ok(mut body) => {
                    let recorded = body.record().await;
                    outcome = outcome.and(recorded);
                }
                Err(_busy) => {
                    tracing::warn!(upload = %session.id(), "an upload is being written to while the store closes");
                }
            }
        }
        outcome
    }

    /// Makes small content durable in one go, for manifests. Nothing names it yet.
    pub async fn put_small(&self, content: Bytes, algorithm: Algorithm) -> Result<FinishedBlob> {
        let length = content.len() as u64;
        let max = SMALL_CONTENT_BYTES.max(self.shared.options.spill_threshold_bytes);
        if length > max {
            return Err(Error::TooLarge {
                what: "small content",
                length,
                max,
            });
        }
        let mut digestion = Digestion::new(algorithm);
        let payload = vec![content.clone()];
        let hashed = self.shared.env.compute(move || {
            digestion.take_in(&[content]);
            digestion
        });
        let digestion = hashed.await.ok_or(Error::Closed)?;
        let digest = digestion.digest();
        let pin = self.leases.pin(&[digest]);
        let stored = self.stored_intact(&digest);
        let extent = if let Some(extent) = stored {
            extent
        } else {
            let checksums = digestion.table();
            let blob = SmallBlob {
                payload,
                length,
                digest,
                checksums,
            };
            self.segments().appender().append(blob).await?
        };
        Ok(FinishedBlob {
            digest,
            length,
            extent,
            abandon: None,
            pin,
        })
    }
}
