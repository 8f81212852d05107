//! The steps of smoke. Each is one exchange of the OCI distribution-spec.
//!
//! Owns: requests and the checks of their answers.
//! Refuses: the order of steps, which `smoke` has.
//!
//! Invariant: a step that succeeds leaves no upload open on the registry.

use http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use http::{Method, StatusCode};
use serde_json::Value;

use super::client::{Answer, Registry};
use super::content::Content;
use super::image::{Blob, INDEX_TYPE, MANIFEST_TYPE};
use super::record::{Outcome, Problem};

/// The result of a step.
pub(crate) type StepResult = Result<Outcome, Problem>;

/// Statuses with which a registry may refuse to delete (distribution-spec, "Content Management").
const REFUSED: [StatusCode; 2] = [StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED];
/// Size of a chunk in bytes, unless the registry requires larger ones.
const CHUNK_BYTES: u64 = 1 << 20;
const OCTETS: &str = "application/octet-stream";

/// One repository of a registry.
#[derive(Debug)]
pub(crate) struct Repository<'a> {
    registry: &'a Registry,
    name: &'a str,
}

impl<'a> Repository<'a> {
    /// Creates a repository. The registry creates it with the first push.
    pub(crate) fn new(registry: &'a Registry, name: &'a str) -> Self {
        Self { registry, name }
    }

    fn path(&self, tail: &str) -> String {
        format!("/v2/{}/{tail}", self.name)
    }

    fn blob_path(&self, blob: &Blob) -> String {
        self.path(&format!("blobs/{}", blob.digest))
    }

    /// Checks that the registry supports this protocol (end-1).
    pub(crate) async fn ping(&self) -> StepResult {
        self.registry
            .send(Method::GET, "/v2/")
            .await?
            .expect(&[StatusCode::OK])
            .await?;
        Ok(Outcome::Done)
    }

    async fn begin_upload(&self) -> Result<Answer, Problem> {
        let answer = self
            .registry
            .send(Method::POST, &self.path("blobs/uploads/"))
            .await?;
        answer.expect(&[StatusCode::ACCEPTED]).await
    }

    async fn put_upload(&self, target: &str, content: &Content) -> Result<Answer, Problem> {
        let headers = [(CONTENT_TYPE, OCTETS.to_owned())];
        let end = content.length();
        self.registry
            .send_content(Method::PUT, target, &headers, content, 0..end)
            .await
    }

    /// Pushes a blob by POST and one PUT (end-4a, end-6).
    pub(crate) async fn push_in_one_put(&self, blob: &Blob) -> StepResult {
        let target = self
            .begin_upload()
            .await?
            .location(&format!("digest={}", blob.digest))?;
        let answer = self.put_upload(&target, &blob.content).await?;
        pushed(answer, blob).await
    }

    /// Pushes a blob in one POST (end-4b). A registry that does not support it answers with an upload for a PUT.
    pub(crate) async fn push_in_one_post(&self, blob: &Blob) -> StepResult {
        let query = format!("digest={}", blob.digest);
        let target = self.path(&format!("blobs/uploads/?{query}"));
        let headers = [(CONTENT_TYPE, OCTETS.to_owned())];
        let end = blob.content.length();
        let answer = self
            .registry
            .send_content(Method::POST, &target, &headers, &blob.content, 0..end)
            .await?
            .expect(&[StatusCode::CREATED, StatusCode::ACCEPTED])
            .await?;
        if answer.status() == StatusCode::CREATED {
            return pushed(answer, blob).await;
        }
        let target = answer.location(&query)?;
        pushed(self.put_upload(&target, &blob.content).await?, blob).await?;
        Ok(Outcome::NotOffered(
            "202: it required a PUT, which was sent".to_owned(),
        ))
    }

    /// Pushes a blob by POST, several PATCH requests and an empty PUT. After each PATCH it checks the registry's offset
    /// (end-5).
    pub(crate) async fn push_in_chunks(&self, blob: &Blob) -> StepResult {
        let answer = self.begin_upload().await?;
        let least = answer
            .header("oci-chunk-min-length")
            .and_then(|value| value.parse().ok());
        let chunk_bytes = CHUNK_BYTES.max(least.unwrap_or(0));
        let mut target = answer.location("")?;
        let length = blob.content.length();
        let mut start = 0;
        while start < length {
            let end = (start + chunk_bytes).min(length);
            let range = format!("{start}-{}", end - 1);
            let headers = [(CONTENT_TYPE, OCTETS.to_owned()), (CONTENT_RANGE, range)];
            let answer = self
                .registry
                .send_content(Method::PATCH, &target, &headers, &blob.content, start..end)
                .await?
                .expect(&[StatusCode::ACCEPTED])
                .await?;
            offset_is(&answer, end)?;
            target = answer.location("")?;
            let status = self.registry.send(Method::GET, &target).await?;
            let status = status.expect(&[StatusCode::NO_CONTENT]).await?;
            offset_is(&status, end)?;
            target = status.location("").unwrap_or(target);
            start = end;
        }
        let joint = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{joint}digest={}", blob.digest);
        pushed(self.registry.send(Method::PUT, &target).await?, blob).await
    }

    /// Checks that bytes with a wrong digest are rejected and leave no blob.
    pub(crate) async fn refuse_wrong_digest(&self, sent: &Blob, claimed: &Blob) -> StepResult {
        let upload = self.begin_upload().await?;
        let target = upload.location(&format!("digest={}", claimed.digest))?;
        let answer = self.put_upload(&target, &sent.content).await?;
        answer.expect(&[StatusCode::BAD_REQUEST]).await?;
        // The upload may still exist, for its right digest, so it is cancelled. Not every registry supports that.
        self.registry
            .send(Method::DELETE, &upload.location("")?)
            .await?;
        self.is_gone(&self.blob_path(claimed)).await
    }

    /// Checks HEAD of a blob: its length, and its digest if it is named (end-2).
    pub(crate) async fn head_blob(&self, blob: &Blob) -> StepResult {
        let answer = self
            .registry
            .send(Method::HEAD, &self.blob_path(blob))
            .await?;
        let answer = answer.expect(&[StatusCode::OK]).await?;
        named_digest_is(&answer, blob)?;
        length_is(&answer, blob)
    }

    /// Pulls a whole blob and compares every byte (end-2).
    pub(crate) async fn pull(&self, blob: &Blob) -> StepResult {
        let answer = self
            .registry
            .send(Method::GET, &self.blob_path(blob))
            .await?;
        let answer = answer.expect(&[StatusCode::OK]).await?;
        named_digest_is(&answer, blob)?;
        answer
            .compare(&blob.content, 0..blob.content.length())
            .await?;
        Ok(Outcome::Done)
    }

    /// Pulls bytes `start..end` (RFC 9110, 14.2). A registry may ignore the range.
    pub(crate) async fn pull_range(&self, blob: &Blob, start: u64, end: u64) -> StepResult {
        let headers = [(RANGE, format!("bytes={start}-{}", end - 1))];
        let answer = self
            .registry
            .send_with(Method::GET, &self.blob_path(blob), &headers)
            .await?;
        let answer = answer
            .expect(&[StatusCode::PARTIAL_CONTENT, StatusCode::OK])
            .await?;
        if answer.status() == StatusCode::OK {
            answer
                .compare(&blob.content, 0..blob.content.length())
                .await?;
            return Ok(Outcome::NotOffered(
                "200: the whole blob was sent".to_owned(),
            ));
        }
        let expected = format!("bytes {start}-{}/{}", end - 1, blob.content.length());
        header_is(&answer, &CONTENT_RANGE, &expected)?;
        answer.compare(&blob.content, start..end).await?;
        Ok(Outcome::Done)
    }

    async fn put(&self, reference: &str, manifest: &Blob) -> Result<Answer, Problem> {
        let target = self.path(&format!("manifests/{reference}"));
        let headers = [(CONTENT_TYPE, MANIFEST_TYPE.to_owned())];
        let (content, end) = (&manifest.content, manifest.content.length());
        let answer = self
            .registry
            .send_content(Method::PUT, &target, &headers, content, 0..end)
            .await?;
        let answer = answer.expect(&[StatusCode::CREATED]).await?;
        named_digest_is(&answer, manifest)?;
        Ok(answer)
    }

    /// Pushes a manifest under a tag (end-7).
    pub(crate) async fn put_manifest(&self, tag: &str, manifest: &Blob) -> StepResult {
        self.put(tag, manifest).await.map(|_| Outcome::Done)
    }

    /// Pushes a manifest with a subject, which the registry must name in its answer.
    pub(crate) async fn put_referrer(&self, referrer: &Blob, subject: &Blob) -> StepResult {
        let answer = self.put(&referrer.digest.to_string(), referrer).await?;
        match answer.header("oci-subject") {
            Some(found) if found == subject.digest.to_string() => Ok(Outcome::Done),
            Some(found) => Err(Problem::new(
                format!("OCI-Subject: {}", subject.digest),
                found,
            )),
            None => Ok(Outcome::NotOffered(
                "no OCI-Subject in the answer".to_owned(),
            )),
        }
    }

    /// Checks HEAD of a manifest, and pulls it and compares every byte (end-3).
    pub(crate) async fn pull_manifest(&self, reference: &str, manifest: &Blob) -> StepResult {
        let target = self.path(&format!("manifests/{reference}"));
        let accept = [(ACCEPT, MANIFEST_TYPE.to_owned())];
        let head = self
            .registry
            .send_with(Method::HEAD, &target, &accept)
            .await?;
        let head = head.expect(&[StatusCode::OK]).await?;
        named_digest_is(&head, manifest)?;
        length_is(&head, manifest)?;
        let answer = self
            .registry
            .send_with(Method::GET, &target, &accept)
            .await?;
        let answer = answer.expect(&[StatusCode::OK]).await?;
        header_is(&answer, &CONTENT_TYPE, MANIFEST_TYPE)?;
        named_digest_is(&answer, manifest)?;
        answer
            .compare(&manifest.content, 0..manifest.content.length())
            .await?;
        Ok(Outcome::Done)
    }

    /// Checks that the tag is in the list (end-8a).
    pub(crate) async fn lists_tag(&self, tag: &str) -> StepResult {
        let answer = self
            .registry
            .send(Method::GET, &self.path("tags/list"))
            .await?;
        let text = answer.expect(&[StatusCode::OK]).await?.text().await?;
        let tags = parse(&text)?;
        let listed = tags
            .get("tags")
            .and_then(Value::as_array)
            .is_some_and(|tags| tags.iter().any(|t| t == tag));
        if listed {
            Ok(Outcome::Done)
        } else {
            Err(Problem::new(format!("{tag} in the tags"), text))
        }
    }

    /// Checks that the referrer is listed for its subject (end-12a).
    pub(crate) async fn lists_referrer(&self, subject: &Blob, referrer: &Blob) -> StepResult {
        let target = self.path(&format!("referrers/{}", subject.digest));
        let answer = self.registry.send(Method::GET, &target).await?;
        let answer = answer
            .expect(&[StatusCode::OK, StatusCode::NOT_FOUND])
            .await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(Outcome::NotOffered("404: no referrers API".to_owned()));
        }
        header_is(&answer, &CONTENT_TYPE, INDEX_TYPE)?;
        let text = answer.text().await?;
        let index = parse(&text)?;
        let wanted = referrer.digest.to_string();
        let manifests = index.get("manifests").and_then(Value::as_array);
        if manifests.is_some_and(|all| {
            all.iter()
                .any(|one| one.get("digest").and_then(Value::as_str) == Some(wanted.as_str()))
        }) {
            return Ok(Outcome::Done);
        }
        Err(Problem::new(format!("{wanted} among the referrers"), text))
    }

    /// Deletes a tag or a manifest and checks that it is gone (end-9).
    pub(crate) async fn delete_manifest(&self, reference: &str) -> StepResult {
        self.delete(&self.path(&format!("manifests/{reference}")))
            .await
    }

    /// Deletes a blob and checks that it is gone (end-10).
    pub(crate) async fn delete_blob(&self, blob: &Blob) -> StepResult {
        self.delete(&self.blob_path(blob)).await
    }

    async fn delete(&self, target: &str) -> StepResult {
        let answer = self.registry.send(Method::DELETE, target).await?;
        if REFUSED.contains(&answer.status()) {
            return Ok(Outcome::NotOffered(answer.status().to_string()));
        }
        answer.expect(&[StatusCode::ACCEPTED]).await?;
        self.is_gone(target).await
    }

    async fn is_gone(&self, target: &str) -> StepResult {
        let accept = [(ACCEPT, MANIFEST_TYPE.to_owned())];
        let answer = self
            .registry
            .send_with(Method::HEAD, target, &accept)
            .await?;
        answer.expect(&[StatusCode::NOT_FOUND]).await?;
        Ok(Outcome::Done)
    }
}

async fn pushed(answer: Answer, blob: &Blob) -> StepResult {
    let answer = answer.expect(&[StatusCode::CREATED]).await?;
    answer.location("")?;
    named_digest_is(&answer, blob)?;
    Ok(Outcome::Done)
}

/// Checks Docker-Content-Digest, which is optional on most answers but must be right.
fn named_digest_is(answer: &Answer, blob: &Blob) -> Result<(), Problem> {
    let expected = blob.digest.to_string();
    match answer.header("docker-content-digest") {
        Some(found) if found != expected => Err(Problem::new(
            format!("Docker-Content-Digest: {expected}"),
            found,
        )),
        _ => Ok(()),
    }
}

fn header_is(answer: &Answer, name: &HeaderName, expected: &str) -> Result<(), Problem> {
    let found = answer.header(name.as_str()).unwrap_or("no such header");
    if found == expected {
        return Ok(());
    }
    Err(Problem::new(format!("{name}: {expected}"), found))
}

fn length_is(answer: &Answer, blob: &Blob) -> StepResult {
    let expected = blob.content.length().to_string();
    header_is(answer, &http::header::CONTENT_LENGTH, &expected).map(|()| Outcome::Done)
}

fn offset_is(answer: &Answer, end: u64) -> Result<(), Problem> {
    let expected = format!("0-{}", end - 1);
    let found = answer.header(RANGE.as_str()).unwrap_or("no such header");
    // "bytes=" is how RFC 9110 writes it; the distribution-spec leaves it out.
    if found.trim_start_matches("bytes=") == expected {
        return Ok(());
    }
    Err(Problem::new(format!("Range: {expected}"), found))
}

fn parse(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text).map_err(|error| Problem::new("JSON", format!("{error} in {text}")))
}
