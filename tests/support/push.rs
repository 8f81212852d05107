//! Pushes as registry clients send them: the three upload shapes, manifests, tags, deletes, status.
//!
//! Owns: [`Shape`], [`Pusher`]. Refuses: to check answers that may be either; it returns them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};

use crate::content::{Content, digest_of_bytes};
use crate::http::{Answer, Connection, LastByte, Upload};

/// The media type of the manifests that this client makes.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The empty JSON object that artifacts use as their config.
pub const EMPTY_JSON: &[u8] = b"{}";

/// The request sequences by which clients send a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// POST, then one PUT with everything (containerd, oras).
    Monolithic,
    /// POST, one PATCH of unknown length, then an empty PUT (docker, podman, skopeo).
    Streamed,
    /// POST, PATCHes of this many bytes with Content-Range, then an empty PUT.
    Chunked(u64),
}

/// A client that pushes to one repository.
#[derive(Debug)]
pub struct Pusher {
    /// The connection, also usable for other requests.
    pub client: Connection,
    repository: String,
}

impl Pusher {
    /// Creates a pusher to `repository` over `client`.
    pub fn new(client: Connection, repository: &str) -> Self {
        Self {
            client,
            repository: repository.to_owned(),
        }
    }

    /// Returns the repository's name.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Pushes to another repository from now on.
    pub fn set_repository(&mut self, repository: &str) {
        repository.clone_into(&mut self.repository);
    }

    /// Returns the path of a blob.
    pub fn blob_path(&self, digest: &str) -> String {
        format!("/v2/{}/blobs/{digest}", self.repository)
    }

    /// Returns the path of a manifest, by tag or digest.
    pub fn manifest_path(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.repository)
    }

    /// Opens an upload. Returns the location where it continues.
    pub async fn open_upload(&mut self) -> Result<String, String> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let answer = self
            .client
            .send(Method::POST, &path, &[], Upload::empty())
            .await?;
        location(&answer.wanted(StatusCode::ACCEPTED, "open an upload")?)
    }

    /// Pushes `content` under its `digest`. Returns how long the 201 took after the last byte was passed on.
    pub async fn blob(
        &mut self,
        content: Content,
        digest: &str,
        shape: Shape,
    ) -> Result<Duration, String> {
        let mut at = self.open_upload().await?;
        self.send_blob(&mut at, content, digest, shape).await
    }

    /// Sends a blob to an open upload. `at` is always the location where the upload continues, also after an error.
    pub async fn send_blob(
        &mut self,
        at: &mut String,
        content: Content,
        digest: &str,
        shape: Shape,
    ) -> Result<Duration, String> {
        let last: LastByte = Arc::default();
        let end = content.length;
        match shape {
            Shape::Monolithic => {
                let body = Upload::part(content, 0, end).noting(&last);
                self.close_upload(at, digest, body).await?;
            }
            Shape::Streamed => {
                let body = Upload::part(content, 0, end).uncounted().noting(&last);
                let answer = self.client.send(Method::PATCH, at, &OCTETS, body).await?;
                *at = location(&answer.wanted(StatusCode::ACCEPTED, "PATCH")?)?;
                self.close_upload(at, digest, Upload::empty()).await?;
            }
            Shape::Chunked(size) => {
                self.chunks(at, content, 0..end, size, &last).await?;
                self.close_upload(at, digest, Upload::empty()).await?;
            }
        }
        let handed = last.lock().expect("the lock is not poisoned").take();
        Ok(handed.map_or(Duration::ZERO, |then| Instant::now() - then))
    }

    /// Sends `range` of `content` to the upload at `at` in pieces of `size`.
    pub async fn chunks(
        &mut self,
        at: &mut String,
        content: Content,
        range: std::ops::Range<u64>,
        size: u64,
        last: &LastByte,
    ) -> Result<(), String> {
        let mut begin = range.start;
        while begin < range.end {
            let end = (begin + size).min(range.end);
            let span = format!("{begin}-{}", end - 1);
            let headers = [OCTETS[0], ("content-range", span.as_str())];
            let body = Upload::part(content, begin, end).noting(last);
            let answer = self.client.send(Method::PATCH, at, &headers, body).await?;
            *at = location(&answer.wanted(StatusCode::ACCEPTED, "PATCH")?)?;
            begin = end;
        }
        Ok(())
    }

    /// Finishes the upload at `at` with `body` as its last part.
    pub async fn close_upload(
        &mut self,
        at: &str,
        digest: &str,
        body: Upload,
    ) -> Result<(), String> {
        let joint = if at.contains('?') { '&' } else { '?' };
        let target = format!("{at}{joint}digest={digest}");
        let answer = self
            .client
            .send(Method::PUT, &target, &OCTETS, body)
            .await?;
        answer
            .wanted(StatusCode::CREATED, "finish an upload")
            .map(drop)
    }

    /// Returns the offset of the upload at `at`, the number of bytes that the server has. `None` means that it is
    /// unknown.
    pub async fn upload_offset(&mut self, at: &str) -> Result<Option<(u64, String)>, String> {
        let answer = self
            .client
            .send(Method::GET, at, &[], Upload::empty())
            .await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.wanted(StatusCode::NO_CONTENT, "status of an upload")?;
        let range = answer.find("range").ok_or("the status has no Range")?;
        let last = range.trim_start_matches("bytes=").strip_prefix("0-");
        let last: u64 = last
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| format!("the status has the Range {range}"))?;
        // `0-0` is also the status of an empty upload, because an HTTP range cannot be empty. A server that has one
        // byte gets it again at 1.
        let next = answer.find("location").unwrap_or(at).to_owned();
        Ok(Some((if last == 0 { 0 } else { last + 1 }, next)))
    }

    /// Returns a manifest that names `layers` (digest, length). Its config is the empty object, which must have been
    /// pushed.
    pub fn manifest(layers: &[(String, u64)], note: u64) -> Vec<u8> {
        let layers: Vec<_> = layers
            .iter()
            .map(|(digest, size)| {
                serde_json::json!({"mediaType": "application/octet-stream", "digest": digest, "size": size})
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.tonnage.test",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": digest_of_bytes(EMPTY_JSON),
                "size": EMPTY_JSON.len(),
            },
            "layers": layers,
            "annotations": {"note": note.to_string()},
        });
        manifest.to_string().into_bytes()
    }

    /// Pushes the empty object as a blob.
    pub async fn empty_json(&mut self) -> Result<(), String> {
        let at = self.open_upload().await?;
        self.close_upload(&at, &digest_of_bytes(EMPTY_JSON), Upload::bytes(EMPTY_JSON))
            .await
    }

    /// Puts a manifest under `reference`. `Ok` means that the answer was 201.
    pub async fn put_manifest(&mut self, reference: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.manifest_path(reference);
        let body = Upload::bytes(bytes.to_vec());
        let answer = self
            .client
            .send(Method::PUT, &path, &[("content-type", MANIFEST)], body)
            .await?;
        answer
            .wanted(StatusCode::CREATED, "PUT of a manifest")
            .map(drop)
    }

    /// Gets a manifest by tag or digest. Returns the answer unchecked.
    pub async fn get_manifest(&mut self, reference: &str) -> Result<Answer, String> {
        let path = self.manifest_path(reference);
        self.client
            .send(Method::GET, &path, &[("accept", MANIFEST)], Upload::empty())
            .await
    }

    /// Sends a HEAD for a blob. Returns the answer unchecked.
    pub async fn head_blob(&mut self, digest: &str) -> Result<Answer, String> {
        let path = self.blob_path(digest);
        self.client
            .send(Method::HEAD, &path, &[], Upload::empty())
            .await
    }

    /// Deletes a manifest or tag. Returns the answer unchecked.
    pub async fn delete_manifest(&mut self, reference: &str) -> Result<Answer, String> {
        let path = self.manifest_path(reference);
        self.client
            .send(Method::DELETE, &path, &[], Upload::empty())
            .await
    }
}

const OCTETS: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

fn location(answer: &Answer) -> Result<String, String> {
    answer
        .find("location")
        .map(str::to_owned)
        .ok_or_else(|| "an answer without Location".into())
}
