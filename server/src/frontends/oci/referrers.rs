//! `/v2/<name>/referrers/<digest>` (distribution-spec, "Listing Referrers")
//!
//! Owns: the encoding of a page, and its limit: clients accept 4 MiB. The memory of a page belongs to the client's
//! account, like that of blobs. So a client that does not read its pages loses them while others wait. If no memory
//! becomes free in time, the page is shorter, and its Link leads to the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::context::RequestContext;
use super::headers;
use super::reply::{self, Reply};
use crate::access::Pull;
use crate::oci::{Digest, RepositoryName, media_type::OCI_INDEX};
use crate::registry::ports::HeldMemory;
use crate::registry::{Error, Referrer, ReferrersPage, ReferrersQuery, Result};
use crate::transport::query;

/// Most bytes of a page: a little less than what clients accept.
const PAGE_BYTES: usize = (4 << 20) - (4 << 10);
/// Largest page in bytes that counts as a small answer, whose memory comes from the reserve.
const SMALL_BYTES: usize = 64 << 10;
/// Longest wait of a page for memory beyond that. Clients that read nothing lose theirs sooner.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait of a page whose first referrer needs the memory, so that it cannot be shorter.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

const BEGIN: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
const END: &str = "]}";

pub(super) async fn list(
    context: &RequestContext<'_>,
    name: RepositoryName,
    subject: Digest,
) -> Reply {
    let pull = context.authorize(Pull(name)).await?;
    // A media type has no spaces: a space here is a plus that the client did not escape.
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
    let mut page = Page::new(context).await;
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
    let (text, memory) = page.finish();
    let reply = reply::json_with(builder, media_type, text)?;
    Ok(reply.map(|body| body.with_memory(memory)))
}

/// A page that is being written.
struct Page<'a> {
    context: &'a RequestContext<'a>,
    text: Vec<u8>,
    entries: usize,
    memory: Option<Box<dyn HeldMemory>>,
    /// Whether `memory` is for a whole page.
    is_large: bool,
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
    async fn new(context: &'a RequestContext<'a>) -> Self {
        Self {
            context,
            text: BEGIN.into(),
            entries: 0,
            memory: being_written(context.hold(SMALL_BYTES).await),
            is_large: false,
        }
    }

    /// Reserves memory for `length` bytes. Returns false if none becomes free and the page can end here. It reserves
    /// all that a page may need at once, because pages that hold a part and wait for more would wait for each other.
    async fn make_room(&mut self, length: usize) -> Result<bool> {
        if self.is_large || length <= SMALL_BYTES {
            return Ok(true);
        }
        let can_end = self.entries > 0;
        let patience = if can_end { PATIENCE } else { LAST_PATIENCE };
        let holding = self.context.hold_large(length.max(PAGE_BYTES));
        let Ok(memory) = self.context.state.clock.timeout(patience, holding).await else {
            return if can_end {
                Ok(false)
            } else {
                Err(Error::TooManyLists)
            };
        };
        (self.memory, self.is_large) = (being_written(memory), true);
        Ok(true)
    }

    fn finish(self) -> (Bytes, Option<Box<dyn HeldMemory>>) {
        let Self {
            mut text, memory, ..
        } = self;
        text.extend_from_slice(END.as_bytes());
        text.shrink_to_fit();
        let memory = memory.inspect(|memory| memory.set_awaited(true));
        (text.into(), memory)
    }
}

/// Records that the client has nothing to read yet, because the page is being written or waits.
fn being_written(memory: Option<Box<dyn HeldMemory>>) -> Option<Box<dyn HeldMemory>> {
    memory.inspect(|memory| memory.set_awaited(false))
}
