//! What handlers are given.
//!
//! Owns: [`Api`], the same for all requests, and [`RequestContext`], one request on its way.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::request::Parts;
use tokio::sync::mpsc;

use super::locations::Locations;
use super::manifest_memory::Admission;
use crate::access::{Action, Authorized, Caller, Gate};
use crate::clock::RunningClock;
use crate::registry::ports::{ClientId, HeldMemory, ReadAccount};
use crate::registry::{Error, Registry};
use crate::telemetry::Metrics;
use crate::transport::front_end::Client;
use crate::transport::host::HostPolicy;
use crate::transport::request_body::RequestBody;

/// Everything a request needs.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) registry: Registry,
    pub(crate) gate: Gate,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) body_idle: Duration,
    pub(crate) clock: RunningClock,
    pub(crate) manifests: Admission,
    /// Shortest chunk that clients are asked for, if not 0.
    pub(crate) chunk_min_bytes: u64,
    /// Registries whose content is mirrored here; none: `ns` is ignored.
    pub(crate) mirror_of: Vec<String>,
    pub(crate) hosts: HostPolicy,
    pub(crate) locations: Locations,
    /// Dropped with the last request.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) under_way: mpsc::Sender<Infallible>,
}

/// One request on its way through a handler.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    pub(super) api: &'a Api,
    pub(super) head: &'a Parts,
    pub(super) caller: Caller,
    pub(super) client: &'a Client,
    pub(super) account: &'a Arc<dyn ReadAccount>,
    pub(super) body: &'a mut RequestBody,
}

impl RequestContext<'_> {
    pub(super) fn registry(&self) -> &Registry {
        &self.api.registry
    }

    pub(super) fn authorize<A: Action>(&self, action: A) -> Result<Authorized<A>, Error> {
        Ok(self.api.gate.authorize(&self.caller, action)?)
    }

    /// The account of the client's answers, for an answer that takes memory; `None` where the connection has ended.
    pub(super) fn account(&self) -> Option<&Arc<dyn ReadAccount>> {
        let holds = self.client.hold_answer_memory();
        holds.then_some(self.account)
    }

    /// Whose turn this request shares where clients wait in turn.
    pub(super) fn client(&self) -> ClientId {
        match self.client.peer() {
            IpAddr::V4(address) => ClientId(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => ClientId(address.to_bits()),
        }
    }

    /// Waits for memory for a small answer of up to `bytes` that is not read from a blob.
    pub(super) async fn hold(&self, bytes: usize) -> Option<Box<dyn HeldMemory>> {
        match self.account() {
            Some(account) => Some(account.hold(true, bytes).await),
            None => None,
        }
    }

    /// The same for a large one.
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
