//! `/v2/_catalog`

use serde_json::json;

use super::{Exchange, Reply, tags};
use crate::access::ListRepositories;

pub(super) async fn list(exchange: &Exchange<'_>) -> Reply {
    let all = exchange.authorize(ListRepositories)?;
    let page = tags::page(exchange)?;
    let memory = exchange.hold(tags::PAGE_BYTES).await;
    let listing = exchange.registry().list_repositories(&all, &page).await?;
    let text = json!({ "repositories": listing.entries });
    let reply = tags::answer("/v2/_catalog", &page, &listing, &text)?;
    Ok(reply.map(|body| body.holding(memory)))
}
