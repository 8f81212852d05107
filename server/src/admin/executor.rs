//! The executor of admin operations.
//!
//! Owns: [`execute`], the only function that carries out an [`AdminRequest`], and the log of failures.
//! Refuses: the work of an operation, which is in the file of its subject.

use futures_util::future::BoxFuture;
use tonnage_engine::Error;

use super::collect::start_collection;
use super::error::AdminError;
use super::jobs::{ListJobs, control_jobs, list_jobs};
use super::repair::{PlanRepair, plan_repair, start_repair};
use super::repositories::{delete_repository, list_repositories};
use super::request::{AdminAnswer, AdminRequest};
use super::scrub::start_scrub;
use super::stats::{GetStats, get_stats};
use super::store::{AdminStore, OpenStore};
use super::tags::{delete_tags, list_tags};
use super::usage::{list_usage, try_deletion};
use super::whence::whence;

/// Carries out a request. One that changes the store continues, and is logged, also if the returned future is dropped.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn execute(
    store: &dyn AdminStore,
    request: AdminRequest,
) -> BoxFuture<'_, Result<AdminAnswer, AdminError>> {
    Box::pin(async move {
        if request.changes_store() {
            return run_to_completion(store.open()?.clone(), request).await;
        }
        run(store, request).await
    })
}

/// Runs a request as a task of its own, so that it continues after its client has disconnected.
async fn run_to_completion(
    store: OpenStore,
    request: AdminRequest,
) -> Result<AdminAnswer, AdminError> {
    let task = tokio::spawn(async move { run(&store, request).await });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an admin operation panicked or was cancelled");
        Err(AdminError::Store(Error::Closed))
    })
}

/// Runs a request. A failure of the store is logged. A name that does not exist is reported to the client only.
async fn run(store: &dyn AdminStore, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
    let answer = dispatch(store, request).await;
    if let Err(AdminError::Store(error)) = &answer {
        tracing::error!(%error, "an admin operation failed");
    }
    answer
}

async fn dispatch(
    store: &dyn AdminStore,
    request: AdminRequest,
) -> Result<AdminAnswer, AdminError> {
    use AdminRequest as Request;
    Ok(match request {
        Request::GetStats(GetStats {}) => AdminAnswer::GetStats(get_stats(store).await?),
        Request::ListRepositories(request) => {
            AdminAnswer::ListRepositories(list_repositories(store, &request).await?)
        }
        Request::ListTags(request) => AdminAnswer::ListTags(list_tags(store, &request).await?),
        Request::DeleteRepository(request) => {
            AdminAnswer::DeleteRepository(delete_repository(store, &request).await?)
        }
        Request::DeleteTags(request) => {
            AdminAnswer::DeleteTags(delete_tags(store, &request).await?)
        }
        Request::StartCollection(request) => {
            let open = store.open()?;
            let started = start_collection(&open.collections, request, open.was_closed);
            AdminAnswer::StartCollection(started?)
        }
        Request::GetCollection(request) => {
            AdminAnswer::GetCollection(store.open()?.collections.get(request.job))
        }
        Request::StartScrub(request) => {
            AdminAnswer::StartScrub(start_scrub(&store.open()?.scrubs, request)?)
        }
        Request::GetScrub(request) => AdminAnswer::GetScrub(store.open()?.scrubs.get(request.job)),
        Request::PlanRepair(PlanRepair {}) => {
            AdminAnswer::PlanRepair(plan_repair(store.writable()?).await?)
        }
        Request::StartRepair(request) => {
            AdminAnswer::StartRepair(start_repair(&store.open()?.repairs, request).await?)
        }
        Request::GetRepair(request) => {
            AdminAnswer::GetRepair(store.open()?.repairs.get(request.job))
        }
        Request::ListUsage(request) => AdminAnswer::ListUsage(list_usage(store, &request).await?),
        Request::TryDeletion(request) => {
            AdminAnswer::TryDeletion(try_deletion(store, &request).await?)
        }
        Request::Whence(request) => AdminAnswer::Whence(whence(store, &request).await?),
        Request::ListJobs(ListJobs {}) => AdminAnswer::ListJobs(list_jobs(store.writable()?)),
        Request::ControlJobs(request) => {
            AdminAnswer::ControlJobs(control_jobs(store.writable()?, &request))
        }
    })
}
