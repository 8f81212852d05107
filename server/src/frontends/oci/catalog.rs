//! `/v2/_catalog`
//!
//! Invariant: a list has the repositories that its reader may pull, and no trace of others.

use serde_json::json;

use super::context::RequestContext;
use super::reply::Reply;
use super::tags;
use crate::access::{Authorized, ListRepositories, See};
use crate::oci::{Page, RepositoryName};
use crate::registry::{Error, Listing};

/// Names that are read from the registry at once.
const LOOKED_AT_ONCE: usize = 1000;

pub(super) async fn list(context: &RequestContext<'_>) -> Reply {
    let all = context.authorize(ListRepositories).await?;
    let page = tags::page(context)?;
    let memory = context.hold(tags::PAGE_BYTES).await;
    let listing = visible(context, &all, &page).await?;
    let text = json!({ "repositories": listing.entries });
    let reply = tags::answer("/v2/_catalog", &page, &listing, &text)?;
    Ok(reply.map(|body| body.with_memory(memory)))
}

/// Returns a page of what the sender may pull: all pages of the registry are looked through until it is full.
async fn visible(
    context: &RequestContext<'_>,
    all: &Authorized<ListRepositories>,
    page: &Page,
) -> Result<Listing, Error> {
    let mut entries = Vec::new();
    if page.limit == 0 {
        return Ok(Listing {
            entries,
            more: false,
        });
    }
    let mut looked = Page {
        // The same for every request, so that the time of an answer says little about names that are left out.
        limit: LOOKED_AT_ONCE,
        last: page.last.clone(),
    };
    loop {
        let found = context.registry().list_repositories(all, &looked).await?;
        looked.last = found.entries.last().cloned();
        for name in found.entries {
            // The store has valid names only.
            let repository: RepositoryName = name.parse().map_err(Error::internal)?;
            if context.grants(&See(repository)).await {
                entries.push(name);
            }
        }
        // That more repositories follow says nothing: they may be hidden.
        let more = entries.len() > page.limit;
        if more || !found.more {
            entries.truncate(page.limit);
            return Ok(Listing { entries, more });
        }
        tokio::task::yield_now().await;
    }
}
