//! A client that carries out calls on a store, simulated or real, and records what it sees.
//!
//! Owns: [`Client`]. Refuses: checks of what a stop leaves (`timeline`). What is wrong at once, such as wrong bytes or
//! a promised lease that is missing, is a violation in the record.

use crate::by_name::ByName as _;
use crate::whole_blobs::ByDigest as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::io::Env;
use tonnage_engine::{
    Algorithm, Batch, Change, CollectionRequest, Corruption, Digest, Error, FinishedBlob,
    ManifestEntry, Origin, Require, ScrubRequest, Store, Upload, UploadClaim, UploadId,
    UploadPosition, UploadSpec, UploadStatus, View,
};

use super::content;
use super::operation::{Call, How, Operation, many_tag};
use super::record::{Answer, SentUpload, Shared};

/// The number of bytes that are sent and rolled back.
const ROLLED_BACK: usize = 70_000;
/// The time without bytes after which an upload is idle: it is suspended, and may be evicted.
pub const IDLE_UPLOAD: Duration = Duration::from_secs(3);
/// The length of the pieces in which contents are sent.
const PIECE: usize = 30_011;

/// One client, which makes its calls one after the other.
#[derive(Debug)]
pub struct Client {
    number: usize,
    store: Store,
    env: Env,
    record: Shared,
    lease_grace: std::time::Duration,
    left: Vec<Left>,
    /// The call has opened an upload.
    has_upload: AtomicBool,
}

/// An upload that was left open.
#[derive(Debug, Clone)]
pub struct Left {
    /// Its id.
    pub id: UploadId,
    /// Its repository.
    pub repository: String,
    /// The content that it is to become.
    pub content: u32,
    /// The number of bytes that it must have: it was suspended when the store was closed.
    pub certain: Option<u64>,
}

impl Client {
    /// Creates a client of an open store, which may continue uploads of an earlier life.
    pub fn new(
        number: usize,
        store: Store,
        env: Env,
        record: Shared,
        lease_grace: std::time::Duration,
        left: Vec<Left>,
    ) -> Self {
        Self {
            number,
            store,
            env,
            record,
            lease_grace,
            left,
            has_upload: AtomicBool::new(false),
        }
    }

    /// Makes all calls. Returns the uploads that it left.
    pub async fn run(mut self, calls: Vec<Call>) -> Vec<Left> {
        for call in &calls {
            let place = self
                .record
                .begin(self.number, call, self.store.view().lsn().0);
            self.has_upload.store(false, Ordering::Relaxed);
            let taken = self.take(call, place).await;
            let answer = taken.unwrap_or_else(|error| match error {
                Error::UnknownUpload if self.has_upload.load(Ordering::Relaxed) => {
                    let what = format!("{call:?}: an upload ended under the request that held it");
                    self.record.add_violation("uploads", what);
                    Answer::Done
                }
                Error::UnknownUpload | Error::TooManyUploads { .. } if self.record.may_evict() => {
                    Answer::Done
                }
                Error::Unmet(unmet) => Answer::Refused(format!("{unmet:?}")),
                error @ (Error::NoSpace { .. }
                | Error::NearlyFull { .. }
                | Error::UnknownUpload
                | Error::UploadBusy) => Answer::Failed(error.to_string()),
                error => Answer::Unknown(error.to_string()),
            });
            if let Answer::Committed(lsn) = answer
                && self.store.view().lsn().0 < lsn
            {
                self.record.add_violation(
                    "visible when answered",
                    format!("{call:?} was answered at LSN {lsn}, which readers do not see"),
                );
            }
            self.record.answer(place, answer);
            self.check_leases(call);
        }
        self.left
    }

    async fn take(&mut self, call: &Call, place: usize) -> Result<Answer, Error> {
        let repository = call.repository.as_str();
        match &call.operation {
            Operation::Push { content, how } => {
                let (id, blob) = self.push(repository, *content, *how).await?;
                let answer = self.link(place, repository, *content, blob).await?;
                let became = self.store.finished_upload(id, repository);
                if became != Some(content::digest(*content)) {
                    let what =
                        format!("upload {id} of content {content} is reported as {became:?}");
                    self.record.add_violation("uploads", what);
                }
                Ok(answer)
            }
            Operation::Manifest {
                number,
                children,
                manifests,
                subject,
                tag,
            } => {
                let blob = self
                    .store
                    .put_small(content::manifest(*number), Algorithm::Sha256)
                    .await?;
                let requires = children
                    .iter()
                    .map(|child| Require::Linked(content::digest(*child)))
                    .collect();
                let entry = ManifestEntry {
                    digest: content::manifest_digest(*number),
                    size: content::manifest(*number).len() as u64,
                    children: children
                        .iter()
                        .map(|child| content::digest(*child))
                        .chain(manifests.iter().map(|one| content::manifest_digest(*one)))
                        .collect(),
                    subject: subject.map(content::manifest_digest),
                    attributes: Bytes::from_static(b"test"),
                };
                let mut changes = vec![Change::PutManifest(entry)];
                if let Some(tag) = tag {
                    changes.push(Change::SetTag {
                        tag: tag.clone(),
                        digest: content::manifest_digest(*number),
                    });
                }
                let batch = Batch {
                    create_repository: true,
                    requires,
                    staged: vec![blob],
                    ..batch(call, changes)
                };
                let begun = self.env.clock.monotonic();
                let answer = self.commit(place, call.clone(), batch).await?;
                if matches!(answer, Answer::Committed(_)) {
                    let digest = content::manifest_digest(*number);
                    self.promise_manifest(repository, digest, begun);
                }
                Ok(answer)
            }
            Operation::Tag { tag, number, old } => {
                let digest = content::manifest_digest(*number);
                let requires = old
                    .iter()
                    .map(|old| Require::Tag {
                        tag: tag.clone(),
                        digest: old.map(content::manifest_digest),
                    })
                    .collect();
                let change = Change::SetTag {
                    tag: tag.clone(),
                    digest,
                };
                let batch = Batch {
                    requires,
                    ..batch(call, vec![change])
                };
                self.commit(place, call.clone(), batch).await
            }
            Operation::TagMany { count, number } => {
                let digest = content::manifest_digest(*number);
                let set = |tag| Change::SetTag {
                    tag: many_tag(tag),
                    digest,
                };
                let changes = (0..*count).map(set).collect();
                self.commit(place, call.clone(), batch(call, changes)).await
            }
            Operation::Untag(tag) => {
                self.change(place, call, Change::DeleteTag(tag.clone()))
                    .await
            }
            Operation::DeleteManifest(number) => {
                let digest = content::manifest_digest(*number);
                self.change(place, call, Change::DeleteManifest(digest))
                    .await
            }
            Operation::DeleteRepository => self.change(place, call, Change::DeleteRepository).await,
            Operation::Unlink(content) => {
                let digest = content::digest(*content);
                self.change(place, call, Change::Unlink(digest)).await
            }
            Operation::Mount { content, from } => {
                let digest = content::digest(*content);
                let requires = vec![Require::LinkedIn {
                    repository: from.clone(),
                    digest,
                }];
                let batch = Batch {
                    create_repository: true,
                    requires,
                    ..batch(call, vec![Change::Link(digest)])
                };
                self.commit(place, call.clone(), batch).await
            }
            Operation::Leave { content, percent } => {
                self.leave(repository, *content, *percent).await
            }
            Operation::Resume => self.resume(place).await,
            Operation::Cancel => self.cancel(),
            Operation::Head(content) => self.head(repository, *content).await,
            Operation::Read(content, from, to) => {
                self.read(repository, *content, (*from, *to)).await
            }
            Operation::Collect(_) => self.collect(place, call).await,
            Operation::CollectManifests(_) => unreachable!("no client makes this call"),
            Operation::Checkpoint => self.store.checkpoint().await.map(|_| Answer::Done),
            Operation::Scrub(digests) => self.scrub(*digests).await,
            Operation::Wait(time) => {
                self.env.clock.sleep(*time).await;
                Ok(Answer::Done)
            }
        }
    }

    /// Verifies everything. What it finds is an error, which only a faulty disk explains.
    async fn scrub(&self, digests: bool) -> Result<Answer, Error> {
        let request = ScrubRequest {
            digests,
            list_max: 1,
            ..ScrubRequest::default()
        };
        let report = self.store.scrub(request).await?;
        match report.listed.first() {
            None => Ok(Answer::Done),
            Some(digest) => Err(Error::Corrupt(Corruption {
                path: PathBuf::from("segments"),
                offset: 0,
                what: format!("scrub marked {digest}"),
            })),
        }
    }

    async fn change(&self, place: usize, call: &Call, change: Change) -> Result<Answer, Error> {
        let batch = batch(call, vec![change]);
        self.commit(place, call.clone(), batch).await
    }

    async fn link(
        &self,
        place: usize,
        repository: &str,
        content: u32,
        blob: FinishedBlob,
    ) -> Result<Answer, Error> {
        let digest = blob.digest();
        let effect = Call {
            repository: repository.to_owned(),
            operation: Operation::Push {
                content,
                how: How::default(),
            },
        };
        let batch = Batch {
            create_repository: true,
            staged: vec![blob],
            ..batch(&effect, vec![Change::Link(digest)])
        };
        self.commit(place, effect, batch).await
    }

    async fn commit(
        &self,
        place: usize,
        effect: Call,
        batch: Batch<FinishedBlob>,
    ) -> Result<Answer, Error> {
        self.record.intends(place, effect);
        let (mut linked, mut referenced) = (Vec::new(), Vec::new());
        for change in &batch.changes {
            match change {
                Change::Link(digest) => linked.push(*digest),
                Change::PutManifest(entry) => referenced.extend_from_slice(&entry.children),
                _ => {}
            }
        }
        let committed = self.store.commit(batch).await?;
        // A linked blob is leased with the answer, until a manifest references it.
        for digest in linked {
            self.leased(digest).await?;
        }
        let mut record = self.record.0.lock();
        record
            .leases
            .retain(|digest, _| !referenced.contains(digest));
        Ok(Answer::Committed(committed.lsn.0))
    }

    /// Records that an answer just promised this digest.
    async fn leased(&self, digest: Digest) -> Result<(), Error> {
        if !self
            .store
            .view()
            .read(|view| view.referenced(&digest))
            .await?
        {
            let until = self.env.clock.monotonic() + self.lease_grace;
            let mut record = self.record.0.lock();
            let lease = record.leases.entry(digest).or_default();
            *lease = until.max(*lease);
        }
        Ok(())
    }

    fn begin(
        &self,
        repository: &str,
        number: u32,
        length_hint: Option<u64>,
    ) -> Result<UploadId, Error> {
        let id = self.store.begin_upload(UploadSpec {
            repository: repository.to_owned(),
            algorithm: Some(content::algorithm(number)),
            length_hint,
            ..UploadSpec::default()
        })?;
        let upload = SentUpload {
            repository: repository.to_owned(),
            whole: content::bytes(number),
            with_rolled_back: None,
            rolled_back: None,
            digest: content::digest(number),
            kept_idle: None,
        };
        let mut record = self.record.0.lock();
        record.uploads.insert(id, upload);
        record.places = record.places.map(|places| places.saturating_sub(1));
        Ok(id)
    }

    async fn open(&self, id: UploadId, repository: &str) -> Result<Upload, Error> {
        let claim = UploadClaim::default();
        let upload = self.store.open_upload(id, repository, claim).await?;
        self.has_upload.store(true, Ordering::Relaxed);
        Ok(upload)
    }

    async fn push(
        &self,
        repository: &str,
        number: u32,
        how: How,
    ) -> Result<(UploadId, FinishedBlob), Error> {
        let whole = content::bytes(number);
        let hint = how.announced.then_some(whole.len() as u64);
        self.store.admit_upload().await?;
        let id = self.begin(repository, number, hint)?;
        let mut upload = self.open(id, repository).await?;
        let half = whole.len() / 2;
        let mut sent = half;
        send(&mut upload, whole.slice(..half)).await?;
        if how.rolled_back {
            let other = Bytes::from(vec![0x5a; ROLLED_BACK]);
            let with = [&whole[..half], &other[..]].concat();
            self.note(id, |upload| upload.with_rolled_back = Some(with.into()));
            let before = upload.savepoint().await?;
            send(&mut upload, other).await?;
            let idles = number.is_multiple_of(2);
            if idles {
                // The upload's log contains these bytes then.
                self.env.clock.sleep(IDLE_UPLOAD).await;
            }
            upload.rollback(before).await?;
            let now = self.record.tick();
            self.note(id, |upload| upload.rolled_back = Some(now));
            if idles {
                // Their space is freed at the next suspension.
                sent = whole.len().min(half + 1);
                send(&mut upload, whole.slice(half..sent)).await?;
                self.env.clock.sleep(IDLE_UPLOAD).await;
            }
        }
        if how.taken_over {
            upload = self.take_over(upload, repository).await?;
        }
        send(&mut upload, whole.slice(sent..)).await?;
        if how.wrong_digest {
            let wrong = Digest::of(content::algorithm(number), b"something else");
            match upload.finish(wrong, None).await {
                Err(Error::DigestMismatch { .. }) => {}
                Err(error) => return Err(error),
                Ok(_) => self.record.add_violation(
                    "digest",
                    format!("content {number} was accepted under another digest"),
                ),
            }
        }
        Ok((id, upload.finish(content::digest(number), None).await?))
    }

    /// Opens the upload in another request, which takes the turn from `older`, which can write no more.
    async fn take_over(&self, mut older: Upload, repository: &str) -> Result<Upload, Error> {
        let claim = UploadClaim {
            position: UploadPosition::At(older.offset()),
            brings_bytes: true,
            // More than will come.
            announced: Some(300_000),
            ..UploadClaim::default()
        };
        let newer = self
            .store
            .open_upload(older.id(), repository, claim)
            .await?;
        if !matches!(
            older.write(Bytes::from_static(b"late")).await,
            Err(Error::UploadBusy)
        ) {
            let what = format!("upload {} took bytes of two requests", older.id());
            self.record.add_violation("uploads", what);
        }
        Ok(newer)
    }

    fn note(&self, id: UploadId, change: impl FnOnce(&mut SentUpload)) {
        if let Some(upload) = self.record.0.lock().uploads.get_mut(&id) {
            change(upload);
        }
    }

    async fn leave(&mut self, repository: &str, number: u32, percent: u8) -> Result<Answer, Error> {
        let whole = content::bytes(number);
        let part = whole.len() * usize::from(percent) / 100;
        let id = self.begin(repository, number, None)?;
        let mut upload = self.open(id, repository).await?;
        send(&mut upload, whole.slice(..part)).await?;
        drop(upload);
        self.note(id, |upload| upload.kept_idle = Some(part as u64));
        self.left.push(Left {
            id,
            repository: repository.to_owned(),
            content: number,
            certain: None,
        });
        Ok(Answer::Done)
    }

    async fn resume(&mut self, place: usize) -> Result<Answer, Error> {
        let Some(left) = self.left.pop() else {
            return Ok(Answer::Done);
        };
        self.note(left.id, |upload| upload.kept_idle = None);
        let Some(status) = status_of(&self.store, &left, &self.record) else {
            return Ok(Answer::Done);
        };
        let whole = content::bytes(left.content);
        let offset = usize::try_from(status.offset).unwrap_or(usize::MAX);
        if offset > whole.len() {
            let what = format!("upload {} says that it has {offset} bytes", left.id);
            self.record.add_violation("uploads", what);
            return Ok(Answer::Done);
        }
        let mut upload = self.open(left.id, &left.repository).await?;
        send(&mut upload, whole.slice(offset..)).await?;
        let blob = match upload.finish(content::digest(left.content), None).await {
            Err(Error::DigestMismatch { expected, found }) => {
                let what = format!(
                    "upload {} went on at {offset} and became {found}, not {expected}",
                    left.id
                );
                self.record.add_violation("uploads", what);
                return Ok(Answer::Done);
            }
            other => other?,
        };
        self.link(place, &left.repository, left.content, blob).await
    }

    fn cancel(&mut self) -> Result<Answer, Error> {
        if let Some(left) = self.left.pop() {
            self.note(left.id, |upload| upload.kept_idle = None);
            if status_of(&self.store, &left, &self.record).is_none() {
                return Ok(Answer::Done); // it was lost in a crash, or evicted
            }
            self.store.cancel_upload(left.id, &left.repository)?;
            if self
                .store
                .upload_status(left.id, &left.repository)
                .is_some()
            {
                let what = format!("upload {} is there after it was cancelled", left.id);
                self.record.add_violation("uploads", what);
            }
        }
        Ok(Answer::Done)
    }

    /// Checks a manifest as a HEAD by digest does: if something may remove it, the answer leases it.
    async fn head_manifest(&self, repository: &str, digest: Digest) -> Result<(), Error> {
        let policy = self.store.untagged_policy();
        let look = |view: &View| {
            let Some(found) = view.repository(repository)? else {
                return Ok(None);
            };
            let there = found.manifest(&digest)?.is_some();
            let needs_lease = found.manifest_needs_lease(&digest, policy)?;
            Ok(there.then_some(needs_lease))
        };
        let begun = self.env.clock.monotonic();
        let mut found = self.store.view().read(look).await?;
        if found == Some(true) {
            self.store.lease_manifest(&digest).await?;
            // It may have been removed before the lease.
            found = self.store.view().read(look).await?;
        }
        if found.is_some() {
            self.promise_manifest(repository, digest, begun);
        }
        Ok(())
    }

    /// Records that an answer promises a manifest from `begun` on.
    fn promise_manifest(&self, repository: &str, digest: Digest, begun: std::time::Duration) {
        let mut record = self.record.0.lock();
        let until = begun + self.lease_grace;
        record
            .manifests
            .insert((repository.to_owned(), digest), until);
    }

    /// Checks a blob as a HEAD does: if it is linked, the answer leases it. Checks a manifest too.
    async fn head(&self, repository: &str, number: u32) -> Result<Answer, Error> {
        let manifest = content::manifest_digest(100 + number % 6);
        self.head_manifest(repository, manifest).await?;
        let (view, digest) = (self.store.view(), content::digest(number));
        if !view.read(|view| view.linked(repository, &digest)).await? {
            return Ok(Answer::Done);
        }
        self.store.lease(&digest).await?;
        // It may have been collected before the lease.
        let view = self.store.view();
        if view.read(|view| view.linked(repository, &digest)).await? {
            self.leased(digest).await?;
        }
        Ok(Answer::Done)
    }

    /// Collects garbage. Nothing that an answer promised may be among it.
    async fn collect(&self, place: usize, call: &Call) -> Result<Answer, Error> {
        let effect = |operation| Call {
            operation,
            ..call.clone()
        };
        let begun_lsn = self.store.view().lsn().0;
        let manifests = self.record.begin(self.number, call, begun_lsn);
        let none = Operation::CollectManifests(Vec::new());
        self.record.intends(manifests, effect(none));
        let none = Operation::Collect(Vec::new());
        self.record.intends(place, effect(none));
        let (promised, promised_manifests) = {
            let record = self.record.0.lock();
            (record.leases.clone(), record.manifests.clone())
        };
        let request = CollectionRequest {
            // Compaction changes nothing that a reader sees.
            full: place.is_multiple_of(2),
            list_max: usize::MAX,
            ..CollectionRequest::default()
        };
        let report = match self.store.collect(request).await {
            Ok(report) => report,
            Err(error) => {
                // The other transaction may have failed.
                let answer = Answer::Unknown(error.to_string());
                self.record.answer(manifests, answer);
                return Err(error);
            }
        };
        let now = self.env.clock.monotonic();
        let gone = report.listed_manifests.into_iter();
        let gone: Vec<_> = gone.map(|one| (one.repository, one.digest)).collect();
        for one in &gone {
            if promised_manifests
                .get(one)
                .is_some_and(|until| *until > now)
            {
                let what = format!("{one:?} was removed, which an answer promised");
                self.record.add_violation("leases", what);
            }
        }
        let answer = match report.manifests_lsn {
            None => Answer::Done,
            Some(lsn) => {
                let gone = Operation::CollectManifests(gone);
                self.record.intends(manifests, effect(gone));
                Answer::Committed(lsn.0)
            }
        };
        self.record.answer(manifests, answer);
        let removed: Vec<_> = report.listed.iter().map(|blob| blob.digest).collect();
        for digest in &removed {
            if promised.get(digest).is_some_and(|until| *until > now) {
                let what = format!("{digest} was collected, which an answer promised");
                self.record.add_violation("leases", what);
            }
        }
        let Some(lsn) = report.lsn else {
            return Ok(Answer::Done);
        };
        self.record
            .intends(place, effect(Operation::Collect(removed)));
        Ok(Answer::Committed(lsn.0))
    }

    /// Checks that every lease of an answer that has not expired exists.
    fn check_leases(&self, after: &Call) {
        let now = self.env.clock.monotonic();
        let promised = self.record.0.lock().leases.clone();
        for (digest, until) in promised {
            if until > now && !self.store.is_leased(&digest) {
                let what =
                    format!("after {after:?}: {digest}, which an answer promised, has no lease");
                self.record.add_violation("leases", what);
            }
        }
    }

    async fn read(
        &self,
        repository: &str,
        number: u32,
        (from, to): (u8, u8),
    ) -> Result<Answer, Error> {
        let digest = content::digest(number);
        if !self
            .store
            .view()
            .read(|view| view.linked(repository, &digest))
            .await?
        {
            return Ok(Answer::Done);
        }
        let Some(reader) = self.store.open_blob(&digest).await? else {
            let view = self.store.view();
            if !view.read(|view| view.linked(repository, &digest)).await? {
                return Ok(Answer::Done); // it was collected meanwhile
            }
            let what = format!("content {number} is linked in {repository} and not stored");
            self.record.add_violation("reads", what);
            return Ok(Answer::Done);
        };
        let whole = content::bytes(number);
        let at = |percent: u8| whole.len() * usize::from(percent) / 100;
        let mut stream = reader.read(at(from) as u64..at(to) as u64);
        let mut found = Vec::new();
        while let Some(piece) = stream.next().await? {
            found.extend_from_slice(&piece);
        }
        if found != whole[at(from)..at(to)] {
            let what = format!("content {number} reads as other bytes from {from} % to {to} %");
            self.record.add_violation("reads", what);
        }
        Ok(Answer::Done)
    }
}

/// Returns the offset of an upload that was left. One of this life must exist, unless it may have been evicted.
pub fn status_of(store: &Store, left: &Left, record: &Shared) -> Option<UploadStatus> {
    let status = store.upload_status(left.id, &left.repository);
    let begun = record.0.lock().uploads.contains_key(&left.id);
    if status.is_none() && begun && !record.may_evict() {
        let what = format!(
            "upload {} is gone, although no upload had to be evicted",
            left.id
        );
        record.add_violation("uploads", what);
    }
    status
}

async fn send(upload: &mut Upload, bytes: Bytes) -> Result<(), Error> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE));
        upload.write(piece).await?;
    }
    Ok(())
}

/// Runs all clients concurrently. Returns the uploads that each left.
pub async fn run_clients(
    store: &Store,
    env: &Env,
    record: &Shared,
    lease_grace: std::time::Duration,
    clients: &[Vec<Call>],
    left: &[Left],
) -> Vec<Left> {
    let share = |number: usize| -> Vec<Left> {
        let mine = left.iter().skip(number).step_by(clients.len().max(1));
        mine.cloned().collect()
    };
    let runs = clients.iter().enumerate().map(|(number, calls)| {
        let client = Client::new(
            number,
            store.clone(),
            env.clone(),
            Shared(Arc::clone(&record.0)),
            lease_grace,
            share(number),
        );
        client.run(calls.clone())
    });
    let left = futures_util::future::join_all(runs).await;
    left.into_iter().flatten().collect()
}

/// Returns a batch in the repository of `call` without preconditions and staged blobs.
fn batch(call: &Call, changes: Vec<Change>) -> Batch<FinishedBlob> {
    Batch {
        repository: call.repository.clone(),
        create_repository: false,
        origin: Origin::default(),
        requires: Vec::new(),
        staged: Vec::new(),
        changes,
    }
}

/// Carries out one call. Panics on a violation.
pub async fn take(store: &Store, env: &Env, call: &Call) -> Result<(), Error> {
    let record = Shared::default();
    let grace = std::time::Duration::ZERO;
    let mut client = Client::new(
        0,
        store.clone(),
        env.clone(),
        record.clone(),
        grace,
        Vec::new(),
    );
    let place = record.begin(0, call, store.view().lsn().0);
    let taken = client.take(call, place).await;
    let violations = &record.0.lock().violations;
    assert!(violations.is_empty(), "{violations:?}");
    taken.map(drop)
}
