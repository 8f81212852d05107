//! Requests that remove: tags, manifests, blobs, and whole repositories.
//!
//! Owns: what others may no longer rely on, recorded before each request. After it, grace begins.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::Method;
use tonnage_tests::http::Upload;
use tonnage_tests::process::program;

use crate::client::{Ask, Checked, Client, unexpected, violation};
use crate::pushes::TAGS;
use crate::world::{Manifest, World};

impl Client {
    /// Deletes a tag, which its manifest outlives.
    pub async fn delete_tag(&mut self, own: usize) -> Checked {
        let (repository, tag) = (self.global(own), self.choices.between(0, TAGS));
        let was = {
            let mut shared = self.world.repositories[repository].lock();
            let at = shared.tags.entry(tag).or_default();
            at.version += 1;
            at.manifest.take()
        };
        let digest = was.as_ref().map_or(String::new(), |at| at.digest.clone());
        let target = format!("/v2/{}/manifests/t{tag}", World::name(repository));
        let ask = Ask {
            what: "delete a tag",
            repository,
            digest: &digest,
            method: &Method::DELETE,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        self.end_deletion(repository, &[tag]);
        match (seen.status(), was) {
            (202, Some(_)) | (404, None) => Ok(()),
            _ => unexpected(&ask, &seen.answer),
        }
    }

    /// Deletes a manifest with its tags.
    pub async fn delete_manifest(&mut self, own: usize) -> Checked {
        let repository = self.global(own);
        let Some(manifest) = self.any_manifest(repository) else {
            return Ok(());
        };
        let changed = self.begin_deletion(repository, std::slice::from_ref(&manifest));
        let target = format!(
            "/v2/{}/manifests/{}",
            World::name(repository),
            manifest.digest
        );
        let ask = Ask {
            what: "delete a manifest",
            repository,
            digest: &manifest.digest,
            method: &Method::DELETE,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        self.end_deletion(repository, &changed);
        if seen.status() != 202 {
            return unexpected(&ask, &seen.answer);
        }
        self.ledger.dereferenced(&manifest.blobs, seen.sent);
        for blob in &manifest.blobs {
            self.watch_edge(own, *blob);
        }
        Ok(())
    }

    /// Records that these manifests may be gone from now on, and returns the tags that go with them.
    fn begin_deletion(&self, repository: usize, manifests: &[Arc<Manifest>]) -> Vec<u64> {
        let mut shared = self.world.repositories[repository].lock();
        let is_gone = |at: &Arc<Manifest>| manifests.iter().any(|gone| gone.digest == at.digest);
        shared.manifests.retain(|at| {
            let gone = is_gone(at);
            at.is_deleted.fetch_or(gone, Ordering::SeqCst);
            !gone
        });
        let mut changed = Vec::new();
        for (tag, at) in &mut shared.tags {
            if at.manifest.as_ref().is_some_and(&is_gone) {
                at.version += 1;
                at.manifest = None;
                changed.push(*tag);
            }
        }
        changed
    }

    fn end_deletion(&self, repository: usize, changed: &[u64]) {
        let mut shared = self.world.repositories[repository].lock();
        for tag in changed {
            shared.tags.entry(*tag).or_default().version += 1;
        }
    }

    /// Deletes a blob that no manifest of this client references.
    pub async fn delete_blob(&mut self, own: usize) -> Checked {
        let choice = self.choices.bits();
        let Some(blob) = self.ledger.unreferenced(own, choice) else {
            return Ok(());
        };
        let (repository, digest) = (self.global(own), self.blob(blob).2);
        let target = format!("/v2/{}/blobs/{digest}", World::name(repository));
        let ask = Ask {
            what: "delete a blob",
            repository,
            digest: &digest,
            method: &Method::DELETE,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        match seen.status() {
            202 => {
                self.ledger.forget(own, blob);
                Ok(())
            }
            404 => self.missed(own, blob, &seen, "delete"),
            _ => unexpected(&ask, &seen.answer),
        }
    }

    /// Deletes a repository with everything in it. A later push creates it again.
    pub async fn delete_repository(&mut self, own: usize) -> Checked {
        let repository = self.global(own);
        let manifests = self.world.repositories[repository].lock().manifests.clone();
        if manifests.is_empty() {
            return Ok(());
        }
        while self.unfinished.iter().any(|left| left.repository == own) {
            self.cancel_upload().await?;
        }
        let name = World::name(repository);
        let changed = self.begin_deletion(repository, &manifests);
        let sent = Instant::now();
        let run = program().and_then(|program| {
            let mut command = Command::new(program);
            command.args(["repo", "delete", &name, "--data"]);
            let command = command.arg(&self.world.data);
            command
                .output()
                .map_err(|e| format!("run repo delete: {e}"))
        });
        self.world.count(1);
        self.end_deletion(repository, &changed);
        let digest = manifests[0].digest.clone();
        let status = run
            .as_ref()
            .map_or(1, |output| u16::from(!output.status.success()));
        self.record(
            "repo delete",
            repository,
            &digest,
            (sent, Instant::now(), status),
        );
        match run {
            Ok(output) if output.status.success() => {}
            failed => return violation(&digest, format!("repo delete {name}: {failed:?}")),
        }
        self.ledger.forget_all(own);
        for manifest in &manifests {
            self.ledger.dereferenced(&manifest.blobs, sent);
        }
        self.list_tags(own).await
    }
}
