//! Requests that read: manifests by tag and digest, blobs, ranges, lists.
//!
//! Owns: the comparison of every answer with what must be there. A pull returns the right bytes, or 404 if a deletion
//! of its manifest was begun. Refuses: short bodies, which the client reports as errors.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::Method;
use tonnage_tests::content::Content;
use tonnage_tests::http::Upload;

use crate::client::{Ask, Checked, Client, unexpected, violation};
use crate::pushes::TAGS;
use crate::world::{Manifest, REPOSITORIES, Tag, World};

/// Pulls of a client that are not finished, at most.
const SLOW_PULLS_MAX: usize = 16;

/// A pull of which the blobs are fetched now and then.
#[derive(Debug)]
pub struct SlowPull {
    repository: usize,
    manifest: Arc<Manifest>,
    next: usize,
}

impl Client {
    /// Returns content, bytes and digest of a blob.
    pub fn blob(&self, blob: usize) -> (Option<Content>, Bytes, String) {
        let blob = &self.world.blobs[blob];
        (blob.content, blob.bytes.clone(), blob.digest.clone())
    }

    /// Pulls an image of any repository by tag, while its owner may move the tag or delete the image.
    pub async fn pull_any(&mut self) -> Checked {
        let repository = self.choose(self.world.repositories.len());
        self.pull_tag(repository).await
    }

    /// Pulls an image of an own repository, which nothing else changes.
    pub async fn pull_own(&mut self, own: usize) -> Checked {
        match self.choices.between(0, 3) {
            0 => match self.any_manifest(self.global(own)) {
                Some(manifest) => {
                    let digest = manifest.digest.clone();
                    self.pull_manifest(self.global(own), &digest, &manifest)
                        .await?;
                    self.pull_blobs(self.global(own), &manifest).await
                }
                None => Ok(()),
            },
            _ => self.pull_tag(self.global(own)).await,
        }
    }

    async fn pull_tag(&mut self, repository: usize) -> Checked {
        let tag = self.choices.between(0, TAGS);
        let look = |client: &Self| -> Option<Tag> {
            let shared = client.world.repositories[repository].lock();
            shared.tags.get(&tag).cloned()
        };
        let before = look(self).unwrap_or_default();
        let expected = before.manifest.as_ref().map_or("", |at| &at.digest);
        let target = format!("/v2/{}/manifests/t{tag}", World::name(repository));
        let ask = Ask {
            what: "pull a tag",
            repository,
            digest: expected,
            method: &Method::GET,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        let after = look(self).unwrap_or_default();
        let is_settled = before.version == after.version && before.version % 2 == 0;
        match (seen.status(), &before.manifest) {
            (200, Some(manifest)) if manifest.bytes == seen.answer.body => {
                if self.slow_pulls.len() >= SLOW_PULLS_MAX || self.choose(2) == 0 {
                    return self.pull_blobs(repository, manifest).await;
                }
                self.slow_pulls.push(SlowPull {
                    repository,
                    manifest: Arc::clone(manifest),
                    next: 0,
                });
                Ok(())
            }
            (404, None) => Ok(()),
            (200 | 404, _) if !is_settled => Ok(()),
            (404, Some(manifest)) if manifest.is_deleted.load(Ordering::SeqCst) => Ok(()),
            (200 | 404, _) => {
                let what = format!("tag t{tag} of {} is wrong", World::name(repository));
                let answer = &seen.answer;
                violation(
                    expected,
                    format!("{what}: {} {:?}", answer.status, answer.body),
                )
            }
            _ => unexpected(&ask, &seen.answer),
        }
    }

    /// Pulls a manifest by digest.
    pub async fn pull_manifest(
        &mut self,
        repository: usize,
        digest: &str,
        manifest: &Arc<Manifest>,
    ) -> Checked {
        let target = format!("/v2/{}/manifests/{digest}", World::name(repository));
        let ask = Ask {
            what: "pull a manifest",
            repository,
            digest,
            method: &Method::GET,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        let is_deleted = manifest.is_deleted.load(Ordering::SeqCst);
        match seen.status() {
            200 if seen.answer.body == manifest.bytes => Ok(()),
            404 if is_deleted => Ok(()),
            _ => unexpected(&ask, &seen.answer),
        }
    }

    /// Pulls all blobs of a manifest, or those before a deletion.
    pub async fn pull_blobs(&mut self, repository: usize, manifest: &Arc<Manifest>) -> Checked {
        for blob in &manifest.blobs {
            if !self.pull_blob(repository, manifest, *blob).await? {
                break;
            }
        }
        Ok(())
    }

    /// Continues a slow pull with its next blob. Its manifest may be deleted, and its blobs collected, since it began.
    pub async fn continue_pull(&mut self) -> Checked {
        if self.slow_pulls.is_empty() {
            return self.pull_any().await;
        }
        let at = self.choose(self.slow_pulls.len());
        let mut slow = self.slow_pulls.swap_remove(at);
        let blob = slow.manifest.blobs[slow.next];
        slow.next += 1;
        let found = self
            .pull_blob(slow.repository, &slow.manifest, blob)
            .await?;
        if found && slow.next < slow.manifest.blobs.len() {
            self.slow_pulls.push(slow);
        }
        Ok(())
    }

    /// Pulls a blob of a manifest, byte for byte. Returns whether it is there, which it must be unless a deletion of
    /// the manifest was begun.
    async fn pull_blob(
        &mut self,
        repository: usize,
        manifest: &Manifest,
        blob: usize,
    ) -> Checked<bool> {
        let (_, bytes, digest) = self.blob(blob);
        // The largest are read in full at the end, and in pieces before.
        let in_part = bytes.len() > 1 << 20 && !self.world.is_over() || self.choose(20) == 0;
        let (first, last) = match in_part {
            true => self.range(bytes.len()),
            false => (0, bytes.len()),
        };
        let target = format!("/v2/{}/blobs/{digest}", World::name(repository));
        let ask = Ask {
            what: "pull a blob",
            repository,
            digest: &digest,
            method: &Method::GET,
            target: &target,
        };
        let range = in_part.then(|| format!("bytes={first}-{}", last - 1));
        let seen = self.ask_range(ask, range.as_deref()).await?;
        let expected = bytes.slice(first..last);
        let own = repository.checked_sub(self.global(0));
        let own = own.filter(|own| *own < REPOSITORIES);
        match seen.status() {
            200 | 206 if in_part == (seen.status() == 206) && seen.answer.body == expected => {
                if let Some(own) = own {
                    self.found(own, blob, &seen);
                    self.ledger.promised(own, blob, seen.sent);
                }
                Ok(true)
            }
            200 | 206 => {
                let got = seen.answer.body.len();
                violation(
                    &digest,
                    format!("wrong bytes: {got} of {} came", expected.len()),
                )
            }
            404 if manifest.is_deleted.load(Ordering::SeqCst) => {
                if let Some(own) = own {
                    self.missed(own, blob, &seen, "pull")?;
                }
                self.world.counts.deleted.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            _ => unexpected(&ask, &seen.answer),
        }
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        let first = self.choose(length);
        let most = (length - first).min(128 << 10);
        (first, first + 1 + self.choose(most))
    }

    /// Lists the tags of an own repository.
    pub async fn list_tags(&mut self, own: usize) -> Checked {
        let repository = self.global(own);
        let expected: Vec<_> = {
            let shared = self.world.repositories[repository].lock();
            let tags = shared.tags.iter().filter(|(_, tag)| tag.manifest.is_some());
            tags.map(|(tag, _)| format!("t{tag}")).collect()
        };
        let target = format!("/v2/{}/tags/list", World::name(repository));
        let ask = Ask {
            what: "list tags",
            repository,
            digest: "",
            method: &Method::GET,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        if seen.status() == 404 && expected.is_empty() {
            return Ok(());
        }
        let document: Option<serde_json::Value> = serde_json::from_slice(&seen.answer.body).ok();
        let listed = document.map(|document| document["tags"] == serde_json::json!(expected));
        match (seen.status(), listed) {
            (200, Some(true)) => Ok(()),
            _ => unexpected(&ask, &seen.answer),
        }
    }
}
