//! Healing of one blob.
//!
//! Owns: asking one place after the other, and receiving what a peer sends through an upload, like a push. Refuses:
//! replacing the damaged bytes, which the commit of the upload does.
//!
//! Invariants: the index says how many bytes a blob has, so not one more is kept; the upload checks the digest. What is
//! received and does not heal is discarded. A blob that was removed meanwhile is not stored again.

use std::time::Duration;

use futures_util::StreamExt as _;
use tonnage_engine::{
    Batch, Digest, Error, Origin, Require, Store, UploadClaim, UploadPosition, UploadSpec,
};

use super::Running;
use super::plan::{Place, PlannedBlob};
use super::report::{BlobOutcome, HealError, HealedFrom};
use crate::registry::peer::{PeerContent, Wanted};

/// The actor in the journal.
const ACTOR: &str = "operator";

/// Why an attempt ended: with this place only, or with the repair.
enum Stop {
    ThisPlace(HealError),
    Everything(Error),
}

impl From<Error> for Stop {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the engine's error is non-exhaustive; the others are about this blob"
    )]
    fn from(error: Error) -> Self {
        match error {
            Error::Closed | Error::Cancelled | Error::Poisoned { .. } => Self::Everything(error),
            Error::DigestMismatch { found, .. } => {
                Self::ThisPlace(HealError::OtherContent { found })
            }
            error => Self::ThisPlace(HealError::Store(error)),
        }
    }
}

/// How much of a blob the job counts. A second place sends again what the first one sent.
struct Counted {
    /// Bytes of this attempt.
    received: u64,
    /// Most bytes of any attempt.
    most: u64,
}

impl Running<'_> {
    /// Tries to heal a blob from all its places.
    pub(super) async fn heal(
        &self,
        digest: Digest,
        length: u64,
    ) -> Result<(PlannedBlob, BlobOutcome), Error> {
        let planned = PlannedBlob::new(&self.store, digest, length).await?;
        let mut counted = Counted {
            received: 0,
            most: 0,
        };
        let outcome = self.ask(&planned, &mut counted).await?;
        self.job.progress(length.saturating_sub(counted.most));
        match &outcome {
            BlobOutcome::Healed(HealedFrom::Peer(place)) => {
                tracing::info!(%digest, repository = place.repository, "a damaged blob was healed");
            }
            BlobOutcome::Healed(HealedFrom::Others) => {}
            BlobOutcome::Left(refusals) => {
                let why = refusals.last().map_or_else(
                    || "no repository needs it, so there is no name to ask for".to_owned(),
                    |(_, why)| why.to_string(),
                );
                tracing::warn!(%digest, why, "a damaged blob could not be healed");
            }
        }
        Ok((planned, outcome))
    }

    async fn ask(
        &self,
        planned: &PlannedBlob,
        counted: &mut Counted,
    ) -> Result<BlobOutcome, Error> {
        let mut refusals = Vec::new();
        for place in &planned.places {
            if !self.store.is_damaged(&planned.digest).await? {
                return Ok(BlobOutcome::Healed(HealedFrom::Others));
            }
            counted.received = 0;
            match self.ask_place(planned, place, counted).await {
                Ok(from) => return Ok(BlobOutcome::Healed(from)),
                Err(Stop::Everything(error)) => return Err(error),
                Err(Stop::ThisPlace(why)) => {
                    let lost = why.lost().is_some();
                    refusals.push((place.clone(), why));
                    if lost {
                        break;
                    }
                }
            }
        }
        Ok(BlobOutcome::Left(refusals))
    }

    async fn ask_place(
        &self,
        planned: &PlannedBlob,
        place: &Place,
        counted: &mut Counted,
    ) -> Result<HealedFrom, Stop> {
        let wanted = Wanted {
            repository: place.repository.clone(),
            digest: planned.digest,
            kind: place.kind,
        };
        let content = tokio::select! {
            biased;
            why = self.job.stopped() => return Err(why.into()),
            content = self.peer.fetch(wanted) => content.map_err(|why| Stop::ThisPlace(why.into()))?,
        };
        if let Some(found) = content.length {
            check_length(planned, found)?;
        }
        self.receive(planned, place, content, counted).await
    }

    /// Receives content like a push, and commits it.
    async fn receive(
        &self,
        planned: &PlannedBlob,
        place: &Place,
        mut content: PeerContent,
        counted: &mut Counted,
    ) -> Result<HealedFrom, Stop> {
        let PlannedBlob { digest, length, .. } = *planned;
        let mut upload = self.begin_upload(planned, place).await?;
        loop {
            let piece = tokio::select! {
                biased;
                why = self.job.stopped() => return Err(why.into()),
                why = upload.interrupted() => return Err(why.into()),
                piece = content.bytes.next() => piece,
            };
            let Some(piece) = piece else { break };
            let bytes = piece.map_err(|why| Stop::ThisPlace(why.into()))?;
            counted.received += bytes.len() as u64;
            if counted.received > length {
                check_length(planned, counted.received)?;
            }
            let news = counted.received.saturating_sub(counted.most);
            counted.most += news;
            self.job.progress(news);
            let now = self.clock.now();
            let pause = self.pace.lock().spend(bytes.len() as u64, now);
            upload.write(bytes).await?;
            if pause > Duration::ZERO {
                let pause = self.clock.alarm_at(now + pause);
                self.job.unless_stopped(pause).await?;
            }
        }
        check_length(planned, counted.received)?;
        let staged = upload.finish(digest, None).await?;
        let batch = Batch {
            repository: place.repository.clone(),
            create_repository: false,
            requires: vec![Require::Stored(digest)],
            staged: vec![staged],
            changes: Vec::new(),
            origin: Origin {
                actor: ACTOR.to_owned(),
                request: String::new(),
            },
        };
        match self.store.commit(batch).await {
            Ok(_) => Ok(HealedFrom::Peer(place.clone())),
            // It is not stored any more, or the repository was deleted.
            Err(Error::Unmet(_)) if !self.store.is_damaged(&digest).await? => {
                Ok(HealedFrom::Others)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins an upload that ends with this attempt in every case.
    async fn begin_upload(
        &self,
        planned: &PlannedBlob,
        place: &Place,
    ) -> Result<tonnage_engine::Upload, Stop> {
        let store: &Store = &self.store;
        let (algorithm, repository) = (Some(planned.digest.algorithm()), &place.repository);
        store.admit_upload().await?;
        let id = store.begin_upload(UploadSpec {
            repository: repository.clone(),
            actor: ACTOR.to_owned(),
            algorithm,
            length_hint: Some(planned.length),
            unlisted: true,
        })?;
        let claim = UploadClaim {
            position: UploadPosition::End,
            algorithm,
            // It was admitted when it began.
            brings_bytes: false,
            announced: None,
            ..UploadClaim::default()
        };
        let opened = store.open_upload(id, repository, claim).await;
        if opened.is_err() {
            // Nobody else knows it. If it ended already, there is nothing to cancel.
            store.cancel_upload(id, repository).unwrap_or_default();
        }
        Ok(opened?)
    }
}

/// # Errors
/// [`HealError::Length`] if a peer has not as many bytes as the blob.
fn check_length(planned: &PlannedBlob, found: u64) -> Result<(), Stop> {
    let expected = planned.length;
    if found == expected {
        return Ok(());
    }
    Err(Stop::ThisPlace(HealError::Length { expected, found }))
}
