//! The arguments of handlers.
//!
//! Owns: [`OciState`], which all requests share, and [`RequestContext`].

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::request::Parts;
use tokio_util::task::TaskTracker;
use tonnage_engine::vocabulary::ClientId;

use super::kept_answers::KeptAnswers;
use super::locations::Locations;
use super::manifest_memory::ManifestMemory;
use crate::access::{Action, Authorized, Gate, Permission, Refused, Requester, TokenIssuer};
use crate::clock::RunningClock;
use crate::frontends::source;
use crate::registry::Registry;
use crate::registry::ports::{HeldMemory, ReadAccount};
use crate::telemetry::Metrics;
use crate::transport::front_end::Client;
use crate::transport::host::HostPolicy;
use crate::transport::request_body::RequestBody;

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct OciState {
    pub(crate) registry: Registry,
    pub(crate) gate: Gate,
    /// Issues tokens, if credentials are asked for.
    pub(crate) tokens: Option<TokenIssuer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) kept: KeptAnswers,
    pub(crate) body_idle: Duration,
    pub(crate) clock: RunningClock,
    pub(crate) manifests: ManifestMemory,
    /// Shortest chunk that clients should send, in bytes; 0 for no limit.
    pub(crate) chunk_min_bytes: u64,
    /// Registries whose content is mirrored here; if empty, `ns` is ignored.
    pub(crate) mirror_of: Vec<String>,
    pub(crate) hosts: HostPolicy,
    pub(crate) locations: Locations,
    /// The requests that are being answered.
    pub(crate) requests: TaskTracker,
}

/// One request, as handlers see it.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    pub(super) state: &'a OciState,
    pub(super) head: &'a Parts,
    pub(super) requester: Requester,
    pub(super) client: &'a Client,
    pub(super) account: &'a Arc<dyn ReadAccount>,
    pub(super) body: &'a mut RequestBody,
}

impl RequestContext<'_> {
    pub(super) fn registry(&self) -> &Registry {
        &self.state.registry
    }

    pub(super) async fn authorize<A: Action>(&self, action: A) -> Result<Authorized<A>, Refused> {
        let authorized = self.state.gate.authorize(&self.requester, action).await?;
        self.require_incarnation(authorized.action().permission())
            .await?;
        Ok(authorized)
    }

    /// Refuses a token that was issued for an earlier repository of the same name.
    async fn require_incarnation(&self, permission: Permission<'_>) -> Result<(), Refused> {
        let Some(name) = permission.repository() else {
            return Ok(());
        };
        let caller = &self.requester.caller;
        match self.registry().is_of_token(caller, name).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.state.gate.challenge(permission)),
            Err(error) => {
                tracing::error!(%error, "the repository of a token could not be looked up");
                Err(Refused::Unavailable)
            }
        }
    }

    /// Returns whether an action would be granted, for what is left out of an answer otherwise.
    pub(super) async fn grants(&self, action: &impl Action) -> bool {
        self.state.gate.grants(&self.requester, action).await
    }

    /// Returns the account of the client's answers, for an answer that holds memory; `None` if the connection has
    /// ended.
    pub(super) fn account(&self) -> Option<&Arc<dyn ReadAccount>> {
        let holds = self.client.hold_answer_memory();
        holds.then_some(self.account)
    }

    /// Returns the id of the client, by which its work takes turns with that of others.
    pub(super) fn client_id(&self) -> ClientId {
        source::client_id(self.client.peer())
    }

    /// Reserves memory for a small answer of up to `bytes` that is not read from a blob.
    pub(super) async fn hold(&self, bytes: usize) -> Option<Box<dyn HeldMemory>> {
        match self.account() {
            Some(account) => Some(account.hold(true, bytes).await),
            None => None,
        }
    }

    /// Reserves memory for a large answer of up to `bytes`.
    pub(super) async fn hold_large(&self, bytes: usize) -> Option<Box<dyn HeldMemory>> {
        match self.account() {
            Some(account) => Some(account.hold(false, bytes).await),
            None => None,
        }
    }

    pub(super) fn is_head(&self) -> bool {
        self.head.method == Method::HEAD
    }
}
