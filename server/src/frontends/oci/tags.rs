//! `/v2/<name>/tags/list`

use http::{Response, StatusCode, header};
use serde_json::json;

use super::context::RequestContext;
use super::headers;
use super::reply::{self, Reply};
use crate::access::Pull;
use crate::frontends::error_body::JSON;
use crate::oci::{Page, RepositoryName};
use crate::registry::{Error, Listing};
use crate::transport::query;

/// Memory for a page of the longest names, in bytes.
pub(super) const PAGE_BYTES: usize = 256 << 10;

pub(super) async fn list(context: &RequestContext<'_>, name: RepositoryName) -> Reply {
    let pull = context.authorize(Pull(name)).await?;
    let page = page(context)?;
    let memory = context.hold(PAGE_BYTES).await;
    let listing = context.registry().list_tags(&pull, &page).await?;
    let name = pull.repository();
    let text = json!({ "name": name.as_str(), "tags": listing.entries });
    let path = format!("/v2/{name}/tags/list");
    let reply = answer(&path, &page, &listing, &text)?;
    Ok(reply.map(|body| body.with_memory(memory)))
}

/// Parses the page that a request asks for.
pub(super) fn page(context: &RequestContext<'_>) -> Result<Page, Error> {
    let n = query::first(context.head, "n");
    let last = query::first(context.head, "last");
    Ok(Page::new(n.as_deref(), last.as_deref())?)
}

/// Builds a page as JSON, with a link to the next one if there is one.
pub(super) fn answer(
    path: &str,
    page: &Page,
    listing: &Listing,
    text: &serde_json::Value,
) -> Reply {
    let mut builder = Response::builder().status(StatusCode::OK);
    if let (true, Some(last)) = (listing.more, listing.entries.last()) {
        let next = query::encode([("n", page.limit.to_string().as_str()), ("last", last)]);
        builder = builder.header(header::LINK, headers::next_link(path, &next));
    }
    reply::json_with(builder, JSON, text.to_string().into())
}
