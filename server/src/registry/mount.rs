//! Mounts a blob of another repository.
//!
//! Owns: the choice of the source repository. Refuses: repositories that the caller may not read. They are treated as
//! not having the blob, and the answer is an upload instead (distribution-spec, "Mounting a blob from another
//! repository").

use tonnage_engine::vocabulary::{Batch, Change, Digest, Require};

use super::ports::CommitError;
use super::{Registry, Result, origin};
use crate::access::{Authorized, Gate, Pull, Push, Refused};
use crate::oci::RepositoryName;

/// Repositories that are checked when the client names no source. A policy may have to ask another server about each,
/// so one request must not cause many questions. Without a mount the answer is an upload.
const HOLDERS_MAX: usize = 32;

impl Registry {
    /// Links `digest` into the repository, from `source` or, without one, from any repository that has it and that
    /// `gate` lets the caller read. Returns whether it could.
    pub async fn mount_blob(
        &self,
        push: &Authorized<Push>,
        digest: Digest,
        source: Option<&Authorized<Pull>>,
        gate: &Gate,
    ) -> Result<bool> {
        let view = self.view().await?;
        let own = push.repository().as_str();
        let here = view.repository(own).await?;
        if self.has_intact(here.as_deref(), digest).await?
            && self.lease_linked(own, digest).await?.is_some()
        {
            return Ok(true);
        }
        let lender = match source {
            Some(source) => Some(source.repository().clone()),
            None => self.find_source(push, digest, gate).await?,
        };
        let Some(lender) = lender else {
            return Ok(false);
        };
        let there = view.repository(lender.as_str()).await?;
        if !self.has_intact(there.as_deref(), digest).await? {
            return Ok(false);
        }
        // Pinned before the commit looks it up again, so that what the commit finds cannot be collected.
        self.blobs.lease(digest).await?;
        let batch = Batch {
            repository: own.to_owned(),
            create_repository: true,
            origin: origin(push.requester()),
            requires: vec![Require::LinkedIn {
                repository: lender.as_str().to_owned(),
                digest,
            }],
            staged: Vec::new(),
            changes: vec![Change::Link(digest)],
        };
        match self.catalog.commit(batch).await {
            Ok(()) => Ok(true),
            Err(CommitError::Unmet(_)) => Ok(false),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    async fn find_source(
        &self,
        push: &Authorized<Push>,
        digest: Digest,
        gate: &Gate,
    ) -> Result<Option<RepositoryName>> {
        let holders = self.view().await?.holders(digest, HOLDERS_MAX).await?;
        for holder in holders {
            let Ok(name) = holder.parse::<RepositoryName>() else {
                continue;
            };
            match gate.authorize(push.requester(), Pull(name)).await {
                Ok(pull) => {
                    let (caller, name) = (&push.requester().caller, pull.repository());
                    if self.is_of_token(caller, name).await? {
                        return Ok(Some(name.clone()));
                    }
                }
                // Asking about every other holder would take as long again each time.
                Err(Refused::Unavailable) => break,
                Err(Refused::Unauthenticated(_) | Refused::Denied) => {}
            }
        }
        Ok(None)
    }
}
