//! A client that pushes, pulls and deletes the same names as forty-nine others, and records each answer.
//!
//! Owns: [`Names`], the names and contents behind the numbers of the model; [`Client`], whose choices depend only on
//! its seed.
//! Refuses: answers that the model has no step for; they fail the test at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use serde_json::{Value, json};
use tonnage_tests::content::Seeded;
use tonnage_tests::http::{Answer, Connection, Upload};
use tonnage_tests::linear::Call;

use super::repository::{BLOBS, Condition, MANIFESTS, Set, Step, TAGS, children};
use crate::{CONFIG, LAYER, MANIFEST, descriptor, sha256};

/// The number of repositories that all clients share.
pub const REPOSITORIES: usize = 6;

/// A clock with a distinct reading for each event, in the order of time.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// The contents behind the model's numbers, the same in every repository.
#[derive(Debug)]
pub struct Names {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<String>,
    subject: String,
}

impl Names {
    /// Generates them.
    pub fn new() -> Self {
        let blobs: Vec<_> = (0..BLOBS).map(|n| crate::content(n, 700)).collect();
        let subject = b"a subject that is nowhere";
        let manifests = (0..MANIFESTS).map(|manifest| {
            let layers = children(manifest).numbers();
            let layers = layers.map(|blob| descriptor(LAYER, &blobs[usize::from(blob)]));
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, b"{}"),
                "layers": layers.collect::<Vec<_>>(), "subject": descriptor(MANIFEST, subject),
                "annotations": {"number": manifest.to_string()},
            });
            manifest.to_string()
        });
        Self {
            manifests: manifests.collect(),
            blobs,
            subject: sha256(subject).to_string(),
        }
    }

    fn blob(&self, number: u8) -> &[u8] {
        &self.blobs[usize::from(number)]
    }

    fn blob_digest(&self, number: u8) -> String {
        sha256(self.blob(number)).to_string()
    }

    fn manifest(&self, number: u8) -> &str {
        &self.manifests[usize::from(number)]
    }

    fn manifest_digest(&self, number: u8) -> String {
        sha256(self.manifest(number).as_bytes()).to_string()
    }

    fn manifest_of(&self, digest: &str) -> Result<u8, String> {
        let mut all = 0..MANIFESTS;
        all.find(|number| self.manifest_digest(*number) == digest)
            .ok_or_else(|| format!("{digest} is none of the manifests"))
    }
}

fn path(repository: usize, rest: &str) -> String {
    format!("/v2/r{repository}/{rest}")
}

fn tag_name(tag: u8) -> String {
    format!("t{tag}")
}

/// One of the clients.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    choices: Seeded,
    clock: Clock,
    names: Arc<Names>,
    /// Calls on each repository.
    pub calls: Vec<Vec<Call<Step>>>,
}

impl Client {
    /// Connects.
    pub async fn connect(
        address: SocketAddr,
        seed: u64,
        clock: &Clock,
        names: &Arc<Names>,
    ) -> Result<Self, String> {
        Ok(Self {
            connection: Connection::connect(address).await?,
            choices: Seeded::new(seed),
            clock: clock.clone(),
            names: Arc::clone(names),
            calls: (0..REPOSITORIES).map(|_| Vec::new()).collect(),
        })
    }

    /// Creates the repositories, with the one config that is never deleted.
    pub async fn prepare(&mut self) -> Result<(), String> {
        for repository in 0..REPOSITORIES {
            let digest = sha256(b"{}");
            let target = path(repository, &format!("blobs/uploads/?digest={digest}"));
            let answer = self.send(Method::POST, &target, &[], "{}").await?;
            expect(&answer, &[201], "prepare")?;
        }
        Ok(())
    }

    /// Sends one request of its own choice, mostly in its current home repository: enough calls at a time on one
    /// repository that they overlap, and few enough that their orders can be searched.
    pub async fn act(&mut self, home: usize) -> Result<(), String> {
        let elsewhere = self.below(10) == 0;
        let any = self.below(REPOSITORIES as u64) as usize;
        let repository = if elsewhere { any } else { home };
        let (tag, manifest, blob) = (
            self.number(TAGS),
            self.number(MANIFESTS),
            self.number(BLOBS),
        );
        let choice = self.below(100);
        let begin = self.clock.tick();
        let step = match choice {
            0..14 => self.push_blob(repository, blob).await,
            14..18 => self.mount(repository, blob).await,
            18..24 => self.see_blob(repository, blob).await,
            24..28 => self.delete_blob(repository, blob).await,
            28..42 => self.put(repository, tag, manifest).await,
            42..50 => self.put_when(repository, tag, manifest).await,
            50..56 => self.put_many(repository, manifest).await,
            56..70 => self.see_tag(repository, tag).await,
            70..76 => self.see_manifest(repository, manifest).await,
            76..82 => self.delete_tag(repository, tag).await,
            82..86 => self.delete_tag_if(repository, tag, manifest).await,
            86..92 => self.delete_manifest(repository, manifest).await,
            92..97 => self.list_tags(repository).await,
            _ => self.list_referrers(repository).await,
        }
        .map_err(|why| format!("r{repository}: {why}"))?;
        self.note(repository, begin, step);
        Ok(())
    }

    /// Reads everything, once all other clients are done.
    pub async fn read_all(&mut self) -> Result<(), String> {
        for repository in 0..REPOSITORIES {
            for tag in 0..TAGS {
                let begin = self.clock.tick();
                let step = self.see_tag(repository, tag).await?;
                self.note(repository, begin, step);
            }
            for manifest in 0..MANIFESTS {
                let begin = self.clock.tick();
                let step = self.see_manifest(repository, manifest).await?;
                self.note(repository, begin, step);
            }
            for blob in 0..BLOBS {
                let begin = self.clock.tick();
                let step = self.see_blob(repository, blob).await?;
                self.note(repository, begin, step);
            }
            let begin = self.clock.tick();
            let step = self.list_tags(repository).await?;
            self.note(repository, begin, step);
            let begin = self.clock.tick();
            let step = self.list_referrers(repository).await?;
            self.note(repository, begin, step);
        }
        Ok(())
    }

    fn note(&mut self, repository: usize, begin: u64, step: Step) {
        let end = self.clock.tick();
        self.calls[repository].push(Call { begin, end, step });
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.choices.between(0, bound)
    }

    fn number(&mut self, bound: u8) -> u8 {
        self.below(u64::from(bound)).to_le_bytes()[0]
    }

    async fn send(
        &mut self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Result<Answer, String> {
        let body = Upload::bytes(body);
        self.connection.send(method, target, headers, body).await
    }

    /// Sends a request without a body that is answered with one of two statuses. Returns whether it was the first.
    async fn send_either(
        &mut self,
        method: Method,
        target: &str,
        statuses: [u16; 2],
    ) -> Result<bool, String> {
        let answer = self.send(method, target, &[], "").await?;
        expect(&answer, &statuses, target)?;
        Ok(answer.status == statuses[0])
    }

    async fn push_blob(&mut self, repository: usize, blob: u8) -> Result<Step, String> {
        let (digest, content) = (
            self.names.blob_digest(blob),
            self.names.blob(blob).to_owned(),
        );
        let (method, target) = if self.below(2) == 0 {
            let target = path(repository, &format!("blobs/uploads/?digest={digest}"));
            (Method::POST, target)
        } else {
            let target = path(repository, "blobs/uploads/");
            let answer = self.send(Method::POST, &target, &[], "").await?;
            expect(&answer, &[202], "begin an upload")?;
            let location = answer.find("location").ok_or("no Location")?;
            (Method::PUT, format!("{location}?digest={digest}"))
        };
        let answer = self.send(method, &target, &[], content).await?;
        expect(&answer, &[201], "push of a blob")?;
        Ok(Step::PushedBlob(blob))
    }

    async fn mount(&mut self, repository: usize, blob: u8) -> Result<Step, String> {
        let digest = self.names.blob_digest(blob);
        let from = (repository + 1) % REPOSITORIES;
        let target = path(
            repository,
            &format!("blobs/uploads/?mount={digest}&from=r{from}"),
        );
        let answer = self.send(Method::POST, &target, &[], "").await?;
        expect(&answer, &[201, 202], "mount")?;
        let done = answer.status == 201;
        if !done {
            let location = answer.find("location").ok_or("no Location")?;
            let answer = self.send(Method::DELETE, location, &[], "").await?;
            expect(&answer, &[204], "cancel")?;
        }
        Ok(Step::Mounted { blob, done })
    }

    async fn see_blob(&mut self, repository: usize, blob: u8) -> Result<Step, String> {
        let target = path(
            repository,
            &format!("blobs/{}", self.names.blob_digest(blob)),
        );
        if self.below(2) == 0 {
            let there = self.send_either(Method::HEAD, &target, [200, 404]).await?;
            return Ok(Step::SawBlob { blob, there });
        }
        let answer = self.send(Method::GET, &target, &[], "").await?;
        expect(&answer, &[200, 404], "GET of a blob")?;
        let there = answer.status == 200;
        if there && answer.body != self.names.blob(blob) {
            return Err(format!("blob {blob} came back as something else"));
        }
        Ok(Step::SawBlob { blob, there })
    }

    async fn delete_blob(&mut self, repository: usize, blob: u8) -> Result<Step, String> {
        let target = path(
            repository,
            &format!("blobs/{}", self.names.blob_digest(blob)),
        );
        let done = self
            .send_either(Method::DELETE, &target, [202, 404])
            .await?;
        Ok(Step::DeletedBlob { blob, done })
    }

    async fn put(&mut self, repository: usize, tag: u8, manifest: u8) -> Result<Step, String> {
        self.put_at(repository, &tag_name(tag), manifest, Set::of([tag]), None)
            .await
    }

    /// Pushes by digest, with two tags or none.
    async fn put_many(&mut self, repository: usize, manifest: u8) -> Result<Step, String> {
        let digest = self.names.manifest_digest(manifest);
        let first = self.number(TAGS);
        let (reference, tags) = if self.below(3) == 0 {
            (digest, Set::default())
        } else {
            let second = (first + 1) % TAGS;
            let query = format!("?tag={}&tag={}", tag_name(first), tag_name(second));
            (digest + &query, Set::of([first, second]))
        };
        self.put_at(repository, &reference, manifest, tags, None)
            .await
    }

    async fn put_when(&mut self, repository: usize, tag: u8, manifest: u8) -> Result<Step, String> {
        let when = match self.below(4) {
            0 => Condition::Absent,
            1 => Condition::Present,
            _ => Condition::Is(self.number(MANIFESTS)),
        };
        let when = Some((tag, when));
        self.put_at(repository, &tag_name(tag), manifest, Set::of([tag]), when)
            .await
    }

    async fn put_at(
        &mut self,
        repository: usize,
        reference: &str,
        manifest: u8,
        tags: Set,
        when: Option<(u8, Condition)>,
    ) -> Result<Step, String> {
        let etag;
        let mut headers = vec![("content-type", MANIFEST)];
        match when {
            None => {}
            Some((_, Condition::Absent)) => headers.push(("if-none-match", "*")),
            Some((_, Condition::Present)) => headers.push(("if-match", "*")),
            Some((_, Condition::Is(other))) => {
                etag = format!("\"{}\"", self.names.manifest_digest(other));
                headers.push(("if-match", &etag));
            }
        }
        let target = path(repository, &format!("manifests/{reference}"));
        let text = self.names.manifest(manifest).to_owned();
        let answer = self.send(Method::PUT, &target, &headers, text).await?;
        match (answer.status.as_u16(), when) {
            (201, _) => Ok(Step::PutManifest {
                manifest,
                tags,
                when,
            }),
            (400, _) => self.lacked(&answer, manifest),
            (412, Some((tag, when))) => Ok(Step::Refused { tag, when }),
            _ => Err(unexpected(&answer, "PUT of a manifest")),
        }
    }

    fn lacked(&self, answer: &Answer, manifest: u8) -> Result<Step, String> {
        let errors: Value =
            serde_json::from_slice(&answer.body).map_err(|e| format!("error body: {e}"))?;
        let errors = errors["errors"].as_array().ok_or("no list of errors")?;
        let numbers = errors.iter().map(|error| {
            let digest = error["detail"]["digest"].as_str().unwrap_or_default();
            let mut blobs = 0..BLOBS;
            blobs
                .find(|blob| self.names.blob_digest(*blob) == digest)
                .filter(|_| error["code"] == "MANIFEST_BLOB_UNKNOWN")
                .ok_or_else(|| unexpected(answer, "PUT of a manifest"))
        });
        let missing = Set::of(numbers.collect::<Result<Vec<_>, _>>()?);
        Ok(Step::LackedBlobs { manifest, missing })
    }

    async fn see_tag(&mut self, repository: usize, tag: u8) -> Result<Step, String> {
        let target = path(repository, &format!("manifests/{}", tag_name(tag)));
        let manifest = self.see(&target).await?;
        Ok(Step::SawTag { tag, manifest })
    }

    async fn see_manifest(&mut self, repository: usize, manifest: u8) -> Result<Step, String> {
        let digest = self.names.manifest_digest(manifest);
        let target = path(repository, &format!("manifests/{digest}"));
        let there = match self.see(&target).await? {
            None => false,
            Some(found) if found == manifest => true,
            Some(found) => return Err(format!("manifest {manifest} is manifest {found}")),
        };
        Ok(Step::SawManifest { manifest, there })
    }

    async fn see(&mut self, target: &str) -> Result<Option<u8>, String> {
        let method = if self.below(2) == 0 {
            Method::HEAD
        } else {
            Method::GET
        };
        let answer = self.send(method.clone(), target, &[], "").await?;
        expect(&answer, &[200, 404], target)?;
        if answer.status == 404 {
            return Ok(None);
        }
        let digest = answer.find("docker-content-digest").ok_or("no digest")?;
        let number = self.names.manifest_of(digest)?;
        if method == Method::GET && answer.body != self.names.manifest(number) {
            return Err(format!("manifest {number} came back as something else"));
        }
        Ok(Some(number))
    }

    async fn delete_tag(&mut self, repository: usize, tag: u8) -> Result<Step, String> {
        let target = path(repository, &format!("manifests/{}", tag_name(tag)));
        let done = self
            .send_either(Method::DELETE, &target, [202, 404])
            .await?;
        let only = None;
        Ok(Step::DeletedTag { tag, only, done })
    }

    async fn delete_tag_if(
        &mut self,
        repository: usize,
        tag: u8,
        manifest: u8,
    ) -> Result<Step, String> {
        let target = path(repository, &format!("manifests/{}", tag_name(tag)));
        let etag = format!("\"{}\"", self.names.manifest_digest(manifest));
        let headers = [("if-match", etag.as_str())];
        let answer = self.send(Method::DELETE, &target, &headers, "").await?;
        expect(&answer, &[202, 404, 412], "DELETE of a tag with If-Match")?;
        let when = Condition::Is(manifest);
        let only = Some(manifest);
        Ok(match answer.status.as_u16() {
            412 => Step::Refused { tag, when },
            status => Step::DeletedTag {
                tag,
                only,
                done: status == 202,
            },
        })
    }

    async fn delete_manifest(&mut self, repository: usize, manifest: u8) -> Result<Step, String> {
        let digest = self.names.manifest_digest(manifest);
        let target = path(repository, &format!("manifests/{digest}"));
        let done = self
            .send_either(Method::DELETE, &target, [202, 404])
            .await?;
        Ok(Step::DeletedManifest { manifest, done })
    }

    async fn list_tags(&mut self, repository: usize) -> Result<Step, String> {
        let target = path(repository, "tags/list");
        let answer = self.send(Method::GET, &target, &[], "").await?;
        expect(&answer, &[200], "tags/list")?;
        let list: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
        let tags = list["tags"].as_array().ok_or("no list of tags")?;
        let numbers = tags.iter().map(|tag| {
            let mut all = 0..TAGS;
            all.find(|number| *tag == tag_name(*number))
                .ok_or_else(|| format!("{tag} is none of the tags"))
        });
        Ok(Step::ListedTags(Set::of(
            numbers.collect::<Result<Vec<_>, _>>()?,
        )))
    }

    async fn list_referrers(&mut self, repository: usize) -> Result<Step, String> {
        let target = path(repository, &format!("referrers/{}", self.names.subject));
        let answer = self.send(Method::GET, &target, &[], "").await?;
        expect(&answer, &[200], "referrers")?;
        let list: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
        let all = list["manifests"].as_array().ok_or("no list of referrers")?;
        let numbers = all.iter().map(|entry| {
            let digest = entry["digest"].as_str().unwrap_or_default();
            self.names.manifest_of(digest)
        });
        Ok(Step::ListedReferrers(Set::of(
            numbers.collect::<Result<Vec<_>, _>>()?,
        )))
    }
}

fn expect(answer: &Answer, statuses: &[u16], doing: &str) -> Result<(), String> {
    if statuses.contains(&answer.status.as_u16()) {
        return Ok(());
    }
    Err(unexpected(answer, doing))
}

fn unexpected(answer: &Answer, doing: &str) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    format!("{doing}: {} {text}", answer.status)
}
