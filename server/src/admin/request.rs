//! All admin operations, each with its request and its answer.
//!
//! Owns: [`AdminRequest`], [`AdminAnswer`], and [`Operation`], which ties the two together.
//! Refuses: the fields of a request and of its answer, which are in the file of its subject.
//!
//! Invariant: in JSON, a request and its answer name their operation, so they cannot be confused with those of another.

use serde::{Deserialize, Serialize};

use super::collect::{CollectedGarbage, GetCollection, StartCollection};
use super::jobs::{ControlJobs, JobList, ListJobs};
use super::repair::{GetRepair, PlanRepair, PlannedRepair, RepairedStore, StartRepair};
use super::repositories::{DeleteRepository, ListRepositories, RepositoryContent, RepositoryPage};
use super::scrub::{GetScrub, ScrubbedStore, StartScrub};
use super::started::{JobState, StartedJob};
use super::stats::{GetStats, Stats};
use super::tags::{DeleteTags, DeletedTags, ListTags, TagPage};
use super::usage::{DeletionEffect, ListUsage, TryDeletion, UsagePage};
use super::whence::{ContentOrigin, Whence};

/// A request with the type of its answer.
pub trait Operation: Into<AdminRequest> {
    /// What [`execute`](super::execute()) returns for it.
    type Answer;

    /// Extracts the typed answer from `answer`. Returns `None` if that belongs to another operation.
    fn answer(answer: AdminAnswer) -> Option<Self::Answer>;
}

/// Declares the operations: each request with its answer.
macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $request:ident => $answer:ty,)+) => {
        /// An admin operation with its parameters.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "operation", rename_all = "snake_case")]
        pub enum AdminRequest {
            $($(#[doc = $doc])+ $request($request),)+
        }

        /// The answer to an [`AdminRequest`], in the variant of the same name.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "operation", rename_all = "snake_case")]
        pub enum AdminAnswer {
            $($(#[doc = $doc])+ $request($answer),)+
        }

        $(
            impl From<$request> for AdminRequest {
                fn from(request: $request) -> Self {
                    Self::$request(request)
                }
            }

            impl Operation for $request {
                type Answer = $answer;

                fn answer(answer: AdminAnswer) -> Option<Self::Answer> {
                    match answer {
                        AdminAnswer::$request(answer) => Some(answer),
                        _ => None,
                    }
                }
            }
        )+
    };
}

operations! {
    /// Counts what the store holds.
    GetStats => Stats,
    /// Lists repositories.
    ListRepositories => RepositoryPage,
    /// Lists the tags of a repository.
    ListTags => TagPage,
    /// Deletes a repository with everything in it.
    DeleteRepository => RepositoryContent,
    /// Deletes tags, all or none.
    DeleteTags => DeletedTags,
    /// Lists the usage of repositories.
    ListUsage => UsagePage,
    /// Finds what a deletion would free.
    TryDeletion => DeletionEffect,
    /// Finds where the content of a digest comes from.
    Whence => ContentOrigin,
    /// Starts a cycle of collection.
    StartCollection => StartedJob,
    /// Returns the state of such a cycle.
    GetCollection => JobState<CollectedGarbage>,
    /// Starts a pass of scrub.
    StartScrub => StartedJob,
    /// Returns the state of such a pass.
    GetScrub => JobState<ScrubbedStore>,
    /// Lists what a repair from another registry would ask for.
    PlanRepair => PlannedRepair,
    /// Starts a repair from another registry.
    StartRepair => StartedJob,
    /// Returns the state of a repair.
    GetRepair => JobState<RepairedStore>,
    /// Lists the jobs that run.
    ListJobs => JobList,
    /// Pauses, resumes or cancels jobs.
    ControlJobs => JobList,
}

impl AdminRequest {
    /// Returns whether the request itself changes the store, and not a job that it starts. Such a request needs a store
    /// that is open for changes. Once begun, it is completed.
    pub fn changes_store(&self) -> bool {
        match self {
            Self::GetStats(_)
            | Self::ListRepositories(_)
            | Self::ListTags(_)
            | Self::ListUsage(_)
            | Self::TryDeletion(_)
            | Self::Whence(_)
            | Self::StartCollection(_)
            | Self::GetCollection(_)
            | Self::StartScrub(_)
            | Self::GetScrub(_)
            | Self::PlanRepair(_)
            | Self::StartRepair(_)
            | Self::GetRepair(_)
            | Self::ListJobs(_)
            | Self::ControlJobs(_) => false,
            Self::DeleteRepository(request) => !request.dry_run,
            Self::DeleteTags(request) => !request.dry_run,
        }
    }
}
