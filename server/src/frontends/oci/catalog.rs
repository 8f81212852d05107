//! `/v2/_catalog`

use serde_json::json;

use super::context::RequestContext;
use super::reply::Reply;
use super::tags;
use crate::access::ListRepositories;

pub(super) async fn list(context: &RequestContext<'_>) -> Reply {
    let all = context.authorize(ListRepositories).await?;
    let page = tags::page(context)?;
    let memory = context.hold(tags::PAGE_BYTES).await;
    let listing = context.registry().list_repositories(&all, &page).await?;
    let text = json!({ "repositories": listing.entries });
    let reply = tags::answer("/v2/_catalog", &page, &listing, &text)?;
    Ok(reply.map(|body| body.with_memory(memory)))
}
