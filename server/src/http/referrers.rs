//! `/v2/<name>/referrers/<digest>` (distribution-spec, "Listing Referrers")
//!
//! Owns: the page as it is sent, and its bounds: clients accept 4 MiB, and what unread pages may take of the memory is
//! bounded for all requests together. Where that is used up pages are shorter; the rest is behind their Link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Reply, RequestContext, headers, query};
use crate::access::Pull;
use crate::clock::RunningClock;
use crate::oci::{Digest, RepositoryName, media_type::OCI_INDEX};
use crate::registry::{Error, Referrer, ReferrersPage, ReferrersQuery, Result};

/// Bytes of a page: a little less than what clients accept.
const PAGE_BYTES: usize = (4 << 20) - (4 << 10);
/// Bytes of a page that are counted as the connection's reads.
const SMALL_BYTES: usize = 64 << 10;
/// Bytes counted at a time.
const STEP_BYTES: usize = 256 << 10;
/// Bytes of all pages that are being made or sent, beside the small ones.
const PAGES_BYTES: usize = 32 << 20;
/// How long one that is large by a single referrer waits for room.
const PATIENCE: Duration = Duration::from_secs(30);

const BEGIN: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
const END: &str = "]}";

/// Memory for pages, all requests together.
#[derive(Debug)]
pub(crate) struct PageMemory(Arc<Semaphore>);

impl Default for PageMemory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PAGES_BYTES / STEP_BYTES)))
    }
}

pub(super) async fn list(
    context: &RequestContext<'_>,
    name: RepositoryName,
    subject: Digest,
) -> Reply {
    let pull = context.authorize(Pull(name))?;
    // A media type has no spaces: one here is a plus that the client did not escape.
    let filter = query::first(context.head, "artifactType").map(|text| text.replace(' ', "+"));
    let filter = filter.filter(|text| !text.is_empty());
    let after = query::first(context.head, "last")
        .filter(|last| !last.is_empty())
        .map(|last| last.parse())
        .transpose();
    let wanted = ReferrersQuery {
        subject,
        artifact_type: filter.as_deref(),
        after: after.map_err(Error::DigestInvalid)?,
    };
    let memory = context.hold(SMALL_BYTES).await;
    let mut page = Page::new(&context.api.pages, &context.api.clock);
    let registry = context.registry();
    let next = registry.list_referrers(&pull, wanted, &mut page).await?;

    let mut builder = Response::builder().status(StatusCode::OK);
    if filter.is_some() {
        builder = builder.header(headers::OCI_FILTERS_APPLIED, "artifactType");
    }
    if let Some(next) = next {
        let next = next.to_string();
        let filter = filter.as_deref().map(|filter| ("artifactType", filter));
        let query = query::encode(filter.into_iter().chain([("last", next.as_str())]));
        let path = format!("/v2/{}/referrers/{subject}", pull.repository());
        builder = builder.header(header::LINK, headers::next_link(&path, &query));
    }
    let media_type = HeaderValue::from_static(OCI_INDEX);
    let reply = headers::json_with(builder, media_type, page.finish())?;
    Ok(reply.map(|body| body.holding(memory)))
}

/// A page being written.
struct Page<'a> {
    text: Vec<u8>,
    entries: usize,
    memory: &'a PageMemory,
    clock: &'a RunningClock,
    held: Option<OwnedSemaphorePermit>,
}

/// A page that is being sent, with the memory that it counts for.
struct Sent {
    text: Vec<u8>,
    #[expect(dead_code, reason = "held for its drop")]
    held: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl ReferrersPage for Page<'_> {
    async fn take(&mut self, referrer: Referrer) -> Result<bool> {
        let descriptor = Descriptor {
            media_type: &referrer.media_type,
            digest: referrer.digest.to_string(),
            size: referrer.length,
            artifact_type: referrer.artifact_type.as_deref(),
            annotations: &referrer.annotations,
        };
        let descriptor = serde_json::to_vec(&descriptor).map_err(Error::internal)?;
        let length = self.text.len() + 1 + descriptor.len() + END.len();
        if (self.entries > 0 && length > PAGE_BYTES) || !self.make_room(length).await? {
            return Ok(false);
        }
        if self.entries > 0 {
            self.text.push(b',');
        }
        self.text.extend_from_slice(&descriptor);
        self.entries += 1;
        Ok(true)
    }
}

impl<'a> Page<'a> {
    fn new(memory: &'a PageMemory, clock: &'a RunningClock) -> Self {
        Self {
            text: BEGIN.into(),
            entries: 0,
            memory,
            clock,
            held: None,
        }
    }

    /// Counts `length` bytes; false where there is no memory for them and the page can do without.
    async fn make_room(&mut self, length: usize) -> Result<bool> {
        let steps = length.saturating_sub(SMALL_BYTES).div_ceil(STEP_BYTES);
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(steps.saturating_sub(held)).map_err(Error::internal)?;
        if missing == 0 {
            return Ok(true);
        }
        let memory = &self.memory.0;
        let more = match Arc::clone(memory).try_acquire_many_owned(missing) {
            Ok(more) => more,
            Err(_) if self.entries > 0 => return Ok(false),
            Err(_) => {
                let turn = Arc::clone(memory).acquire_many_owned(missing);
                let turn = self.clock.timeout(PATIENCE, turn).await;
                turn.map_err(|_elapsed| Error::TooManyLists)?
                    .map_err(Error::internal)?
            }
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(true)
    }

    fn finish(mut self) -> Bytes {
        self.text.extend_from_slice(END.as_bytes());
        self.text.shrink_to_fit();
        let (text, held) = (self.text, self.held);
        Bytes::from_owner(Sent { text, held })
    }
}

#[cfg(test)]
mod tests {
    use tonnage_engine::Algorithm;

    use super::*;

    fn referrer(bytes: usize) -> Referrer {
        Referrer {
            digest: Digest::of(Algorithm::Sha256, b"x"),
            length: 1,
            media_type: OCI_INDEX.to_owned(),
            artifact_type: None,
            annotations: BTreeMap::from([("a".to_owned(), "x".repeat(bytes))]),
        }
    }

    /// Guards: pages that are not read hold a bounded amount of memory; while they do, others are shorter and never fail
    /// nor wait, and what they held comes back with the last of their bytes.
    #[tokio::test]
    async fn pages_share_a_bounded_memory() {
        let (memory, clock) = (PageMemory::default(), RunningClock::start());
        let mut unread = Vec::new();
        let full = loop {
            let mut page = Page::new(&memory, &clock);
            assert!(page.take(referrer(1000)).await.unwrap());
            if !page.take(referrer(4_000_000)).await.unwrap() {
                break page;
            }
            unread.push(page.finish());
        };
        assert!((6..=9).contains(&unread.len()), "{}", unread.len());
        assert!(full.text.len() < SMALL_BYTES);
        unread.pop();
        let mut page = full;
        assert!(page.take(referrer(3_000_000)).await.unwrap());
        let text: serde_json::Value = serde_json::from_slice(&page.finish()).unwrap();
        assert_eq!(text["manifests"].as_array().unwrap().len(), 2);
    }
}
