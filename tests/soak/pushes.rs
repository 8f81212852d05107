//! Requests that add: uploads, mounts, existence checks, manifests and tags.
//!
//! Owns: what the answers promise, and what earlier promises demand of the answers. Refuses: a missing blob that was
//! promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyper::Method;
use tonnage_tests::content::digest_of_bytes;
use tonnage_tests::http::Upload;
use tonnage_tests::push::{Pusher, Shape};

use crate::client::{Ask, Checked, Client, Edge, Seen, Unfinished, unexpected, violation};
use crate::world::{Manifest, REPOSITORIES, World};

/// A push whose blobs vanish this often, each time after their grace, makes no progress.
const ATTEMPTS: u32 = 30;
/// Manifests that a repository has at most. Few, so that blobs lose their last reference often.
const MANIFESTS_MAX: usize = 2;
/// Tags of a repository.
pub const TAGS: u64 = 3;

impl Client {
    /// Pushes a blob in one of the ways in which clients do. The answer is 201.
    pub async fn upload(&mut self, own: usize, blob: usize) -> Checked {
        let (content, bytes, digest) = self.blob(blob);
        let shape = match self.choices.between(0, 10) {
            0..6 => None,
            6..8 => Some(Shape::Monolithic),
            8 => Some(Shape::Streamed),
            _ => Some(Shape::Chunked((bytes.len() / 3 + 1) as u64)),
        };
        let sent = Instant::now();
        let repository = self.global(own);
        if let (Some(shape), Some(content)) = (shape, content) {
            self.pusher.set_repository(&World::name(repository));
            let done = self.pusher.blob(content, &digest, shape).await;
            let status = if done.is_ok() { 201 } else { 0 };
            self.record("push", repository, &digest, (sent, Instant::now(), status));
            self.world.count(match shape {
                Shape::Monolithic => 2,
                Shape::Streamed => 3,
                Shape::Chunked(_) => 5,
            });
            if let Err(why) = done {
                return violation(&digest, why);
            }
            self.ledger.promised(own, blob, sent);
            return Ok(());
        }
        let target = format!(
            "/v2/{}/blobs/uploads/?digest={digest}",
            World::name(repository)
        );
        let ask = Ask {
            what: "push at once",
            repository,
            digest: &digest,
            method: &Method::POST,
            target: &target,
        };
        let seen = self.ask(ask, Upload::bytes(bytes)).await?;
        if seen.status() != 201 {
            return unexpected(&ask, &seen.answer);
        }
        self.ledger.promised(own, blob, seen.sent);
        Ok(())
    }

    /// Sends a HEAD for a blob of an own repository. Returns whether it is there, which is a promise.
    pub async fn check_blob(&mut self, own: usize, blob: usize) -> Checked<bool> {
        let digest = self.blob(blob).2;
        let repository = self.global(own);
        let target = format!("/v2/{}/blobs/{digest}", World::name(repository));
        let ask = Ask {
            what: "check",
            repository,
            digest: &digest,
            method: &Method::HEAD,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        match seen.status() {
            200 => {
                self.found(own, blob, &seen);
                self.ledger.promised(own, blob, seen.sent);
                Ok(true)
            }
            404 => {
                self.missed(own, blob, &seen, "check")?;
                Ok(false)
            }
            _ => unexpected(&ask, &seen.answer),
        }
    }

    /// Mounts a blob into an own repository. Uploads it if the answer opens an upload. `manifest` is one of the lender
    /// that has the blob: as long as it exists, the mount must succeed.
    pub async fn mount(
        &mut self,
        own: usize,
        blob: usize,
        lender: usize,
        manifest: Option<&Manifest>,
    ) -> Checked {
        let (_, bytes, digest) = self.blob(blob);
        let repository = self.global(own);
        let (name, from) = (World::name(repository), World::name(lender));
        let target = format!("/v2/{name}/blobs/uploads/?mount={digest}&from={from}");
        let ask = Ask {
            what: "mount",
            repository,
            digest: &digest,
            method: &Method::POST,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        if seen.status() == 201 {
            self.ledger.promised(own, blob, seen.sent);
            return Ok(());
        }
        if seen.status() != 202 {
            return unexpected(&ask, &seen.answer);
        }
        if manifest.is_some_and(|at| !at.is_deleted.load(Ordering::SeqCst)) {
            return violation(&digest, format!("mount: {from} lost {digest}"));
        }
        self.missed(own, blob, &seen, "mount")?;
        let location = location(&ask, &seen)?;
        self.close_upload(own, blob, &location, Upload::bytes(bytes))
            .await
    }

    async fn close_upload(
        &mut self,
        own: usize,
        blob: usize,
        location: &str,
        body: Upload,
    ) -> Checked {
        let digest = self.blob(blob).2;
        let joint = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{joint}digest={digest}");
        let ask = Ask {
            what: "close an upload",
            repository: self.global(own),
            digest: &digest,
            method: &Method::PUT,
            target: &target,
        };
        let seen = self.ask(ask, body).await?;
        if seen.status() != 201 {
            return unexpected(&ask, &seen.answer);
        }
        self.ledger.promised(own, blob, seen.sent);
        Ok(())
    }

    /// Makes a blob exist in an own repository, as clients do: with a check, a mount, or an upload at once.
    async fn provide(&mut self, own: usize, blob: usize) -> Checked {
        match self.choices.between(0, 10) {
            0..5 => match self.check_blob(own, blob).await? {
                true => Ok(()),
                false => self.upload(own, blob).await,
            },
            5..7 => {
                let lender = self.choose(self.world.repositories.len());
                self.mount(own, blob, lender, None).await
            }
            _ => self.upload(own, blob).await,
        }
    }

    /// Pushes an image of a few blobs.
    pub async fn push_image(&mut self, own: usize) -> Checked {
        let mut blobs = vec![0];
        for _ in 0..=self.choose(3) {
            blobs.push(self.choose_blob());
        }
        blobs.sort_unstable();
        blobs.dedup();
        for blob in blobs.clone() {
            self.provide(own, blob).await?;
        }
        self.push_manifest(own, blobs).await
    }

    /// Pushes an image of this client's share of all contents, so that the store is not almost empty at the end.
    pub async fn push_share(&mut self) -> Checked {
        let (number, clients) = (self.number, self.world.repositories.len() / REPOSITORIES);
        let is_own = |blob: &usize| *blob == 0 || blob % clients == number;
        let blobs: Vec<_> = (0..self.world.blobs.len()).filter(is_own).collect();
        for blob in blobs.clone() {
            self.provide(0, blob).await?;
        }
        self.push_manifest(0, blobs).await
    }

    /// Pushes a manifest of blobs whose existence was promised, after older ones were deleted.
    pub async fn push_manifest(&mut self, own: usize, blobs: Vec<usize>) -> Checked {
        while self.count_manifests(own) >= MANIFESTS_MAX {
            self.delete_manifest(own).await?;
        }
        let layers = blobs.iter().filter(|blob| **blob > 0);
        let layers: Vec<_> = layers
            .map(|blob| &self.world.blobs[*blob])
            .map(|blob| (blob.digest.clone(), blob.bytes.len() as u64))
            .collect();
        // Few notes, so that several repositories have the same manifest.
        let bytes = Pusher::manifest(&layers, self.choices.between(0, 2));
        let digest = digest_of_bytes(&bytes);
        let known = {
            let shared = self.world.repositories[self.global(own)].lock();
            let known = shared.manifests.iter().find(|at| at.digest == digest);
            known.cloned()
        };
        let manifest = known.unwrap_or_else(|| {
            Arc::new(Manifest {
                digest,
                bytes: bytes.into(),
                blobs,
                is_deleted: AtomicBool::new(false),
            })
        });
        let tag = match self.choices.between(0, TAGS + 1) {
            TAGS => None,
            tag => Some(tag),
        };
        self.put_manifest(own, &manifest, tag).await
    }

    /// Puts a manifest by tag or digest until its blobs exist. One that was promised must exist.
    pub async fn put_manifest(
        &mut self,
        own: usize,
        manifest: &Arc<Manifest>,
        tag: Option<u64>,
    ) -> Checked {
        let repository = self.global(own);
        let reference = tag.map_or(manifest.digest.clone(), |tag| format!("t{tag}"));
        let target = format!("/v2/{}/manifests/{reference}", World::name(repository));
        let ask = Ask {
            what: if tag.is_some() {
                "put a tag"
            } else {
                "put a manifest"
            },
            repository,
            digest: &manifest.digest,
            method: &Method::PUT,
            target: &target,
        };
        for _ in 0..ATTEMPTS {
            self.begin_tag(repository, tag);
            let body = Upload::bytes(manifest.bytes.clone());
            let seen = self.ask(ask, body).await;
            self.end_tag(repository, tag, &seen, manifest);
            let seen = seen?;
            match seen.status() {
                201 => {
                    self.pushed(own, manifest, &seen);
                    return Ok(());
                }
                400 => {
                    for blob in self.missing_blobs(&ask, &seen, manifest)? {
                        self.missed(own, blob, &seen, "put a manifest")?;
                        self.upload(own, blob).await?;
                    }
                    self.world.counts.repeated.fetch_add(1, Ordering::Relaxed);
                }
                _ => return unexpected(&ask, &seen.answer),
            }
        }
        violation(
            &manifest.digest,
            format!("its blobs were collected {ATTEMPTS} times"),
        )
    }

    fn begin_tag(&self, repository: usize, tag: Option<u64>) {
        let mut shared = self.world.repositories[repository].lock();
        if let Some(tag) = tag {
            shared.tags.entry(tag).or_default().version += 1;
        }
    }

    fn end_tag(
        &self,
        repository: usize,
        tag: Option<u64>,
        seen: &Checked<Seen>,
        manifest: &Arc<Manifest>,
    ) {
        let mut shared = self.world.repositories[repository].lock();
        if let Some(tag) = tag {
            let tag = shared.tags.entry(tag).or_default();
            if seen.as_ref().is_ok_and(|seen| seen.status() == 201) {
                tag.manifest = Some(Arc::clone(manifest));
            }
            tag.version += 1;
        }
    }

    /// Records a manifest that got its 201.
    fn pushed(&mut self, own: usize, manifest: &Arc<Manifest>, seen: &Seen) {
        let held: Vec<_> = manifest.blobs.clone();
        for blob in &held {
            self.found(own, *blob, seen);
        }
        let repository = &self.world.repositories[self.global(own)];
        let mut shared = repository.lock();
        if shared
            .manifests
            .iter()
            .any(|at| at.digest == manifest.digest)
        {
            return;
        }
        shared.manifests.push(Arc::clone(manifest));
        drop(shared);
        let time = &self.world.time;
        self.ledger.referenced(own, &held, seen.answered, time);
    }

    /// Returns the blobs that a 400 says are missing.
    fn missing_blobs(
        &self,
        ask: &Ask<'_>,
        seen: &Seen,
        manifest: &Manifest,
    ) -> Checked<Vec<usize>> {
        let document: Option<serde_json::Value> = serde_json::from_slice(&seen.answer.body).ok();
        let errors = document.as_ref().and_then(|all| all["errors"].as_array());
        let missing = errors.into_iter().flatten().map(|error| {
            let digest = error["detail"]["digest"].as_str().unwrap_or_default();
            self.world
                .blob_of(digest)
                .filter(|blob| manifest.blobs.contains(blob))
                .filter(|_| error["code"] == "MANIFEST_BLOB_UNKNOWN")
        });
        match missing.collect::<Option<Vec<_>>>() {
            Some(missing) if !missing.is_empty() => Ok(missing),
            _ => unexpected(ask, &seen.answer),
        }
    }

    /// Pushes a blob that nothing will reference, unless a later image has it.
    pub async fn push_orphan(&mut self, own: usize) -> Checked {
        let blob = self.choose_blob();
        self.upload(own, blob).await?;
        self.watch_edge(own, blob);
        if self.choose(3) == 0 {
            self.check_blob(own, blob).await?;
        }
        Ok(())
    }

    /// Checks whether a blob is there that may be, or not.
    pub async fn check_any_blob(&mut self, own: usize) -> Checked {
        let choice = self.choices.bits();
        let blob = self.ledger.unreferenced(own, choice);
        let blob = blob.unwrap_or_else(|| self.choose_blob());
        self.check_blob(own, blob).await.map(drop)
    }

    /// Mounts a blob of any repository.
    pub async fn mount_any(&mut self, own: usize) -> Checked {
        let lender = self.choose(self.world.repositories.len());
        let manifest = self.any_manifest(lender);
        let blob = match &manifest {
            Some(manifest) => manifest.blobs[self.choose(manifest.blobs.len())],
            None => self.choose_blob(),
        };
        self.mount(own, blob, lender, manifest.as_deref()).await?;
        self.watch_edge(own, blob);
        Ok(())
    }

    /// Moves a tag to another manifest of the repository.
    pub async fn move_tag(&mut self, own: usize) -> Checked {
        let tag = self.choices.between(0, TAGS);
        match self.any_manifest(self.global(own)) {
            Some(manifest) => self.put_manifest(own, &manifest, Some(tag)).await,
            None => self.push_image(own).await,
        }
    }

    /// Uses a blob at the end of its grace. If a request finds it, the manifest that follows must find it too.
    pub async fn touch_at_the_edge(&mut self, edge: Edge) -> Checked {
        let Edge {
            repository: own,
            blob,
            ..
        } = edge;
        match self.choices.between(0, 4) {
            0 => drop(self.check_blob(own, blob).await?),
            1 => self.upload(own, blob).await?,
            2 => self.mount(own, blob, self.global(own), None).await?,
            // Straight to the manifest, which may find it or not.
            _ => {}
        }
        self.provide(own, 0).await?;
        let mut blobs = vec![0, blob];
        blobs.dedup();
        self.push_manifest(own, blobs).await
    }

    /// Begins an upload, sends a part of it, and leaves it.
    pub async fn leave_upload(&mut self, own: usize) -> Checked {
        let blob = self.choose_blob();
        let (_, bytes, digest) = self.blob(blob);
        let repository = self.global(own);
        let target = format!("/v2/{}/blobs/uploads/", World::name(repository));
        let ask = Ask {
            what: "open an upload",
            repository,
            digest: &digest,
            method: &Method::POST,
            target: &target,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        let opened = location(&ask, &seen)?;
        let ask = Ask {
            what: "send a part",
            method: &Method::PATCH,
            target: &opened,
            ..ask
        };
        let received = bytes.len() / 2;
        let seen = self
            .ask(ask, Upload::bytes(bytes.slice(..received)))
            .await?;
        let location = location(&ask, &seen)?;
        self.unfinished.push(Unfinished {
            repository: own,
            blob,
            location,
            received,
        });
        if self.unfinished.len() > 4 {
            return self.cancel_upload().await;
        }
        Ok(())
    }

    /// Sends the rest of an upload that was left. It became no blob, so nothing ended it.
    pub async fn continue_upload(&mut self) -> Checked {
        let Some(left) = self.unfinished.pop() else {
            return Ok(());
        };
        let rest = self.blob(left.blob).1.slice(left.received..);
        self.close_upload(
            left.repository,
            left.blob,
            &left.location,
            Upload::bytes(rest),
        )
        .await
    }

    /// Cancels an upload that was left.
    pub async fn cancel_upload(&mut self) -> Checked {
        let Some(left) = self.unfinished.pop() else {
            return Ok(());
        };
        let digest = self.blob(left.blob).2;
        let ask = Ask {
            what: "cancel an upload",
            repository: self.global(left.repository),
            digest: &digest,
            method: &Method::DELETE,
            target: &left.location,
        };
        let seen = self.ask(ask, Upload::empty()).await?;
        match seen.status() {
            204 => Ok(()),
            _ => unexpected(&ask, &seen.answer),
        }
    }

    fn count_manifests(&self, own: usize) -> usize {
        let repository = &self.world.repositories[self.global(own)];
        repository.lock().manifests.len()
    }

    /// Returns a manifest of any repository, if it has one.
    pub fn any_manifest(&mut self, repository: usize) -> Option<Arc<Manifest>> {
        let shared = self.world.repositories[repository].lock();
        let manifests = shared.manifests.clone();
        drop(shared);
        let at = (!manifests.is_empty()).then(|| self.choose(manifests.len()));
        at.map(|at| Arc::clone(&manifests[at]))
    }
}

fn location(ask: &Ask<'_>, seen: &Seen) -> Checked<String> {
    match (seen.status(), seen.answer.find("location")) {
        (202, Some(location)) => Ok(location.to_owned()),
        _ => unexpected(ask, &seen.answer),
    }
}
