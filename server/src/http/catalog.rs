//! `/v2/_catalog`

use serde_json::json;

use super::{Exchange, Reply, tags};
use crate::access::ListRepositories;

pub(super) async fn list(exchange: &Exchange<'_>) -> Reply {
    let all = exchange.authorize(ListRepositories)?;
    let page = tags::page(exchange)?;
    let listing = exchange.registry().list_repositories(&all, &page).await?;
    let text = json!({ "repositories": listing.entries });
    tags::answer("/v2/_catalog", &page, &listing, &text)
}
