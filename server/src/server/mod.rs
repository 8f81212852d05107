//! The server: its listeners with their front ends, from bind to drain.
//!
//! Owns: [`Server`], [`Bound`], [`ServerOptions`].
//! Refuses: opening a store or reading a configuration, which `tools` does; connections, which are the transport's.
//!
//! Invariants: addresses are bound before anything is served, so a caller can report them. After shutdown no
//! connection is accepted, and active requests have [`ServerOptions::drain`] to end.

mod options;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prometheus_client::collector::Collector;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonnage_engine::Store;

pub use self::options::ServerOptions;
use crate::access::{AccessControl, Gate};
use crate::clock::RunningClock;
use crate::embedded;
use crate::frontends::admin::probes::{ProbeState, Probes};
use crate::frontends::oci::{KeptAnswers, ManifestMemory, OciFrontEnd, OciState};
use crate::registry::{Limits, Registry};
use crate::telemetry::Metrics;
use crate::tls::ServerTls;
use crate::transport::accept::{Listener, listen};
use crate::transport::connection_limits::ConnectionLimits;
use crate::transport::host::HostPolicy;

/// Most connections of the admin listener at a time.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Time that connections of the admin listener have to end, after the registry's.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
/// Time that requests have to end after their connections were closed, for the last writes of an upload or a commit.
const CUT_REQUESTS_MAX: Duration = Duration::from_secs(10);

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address could not be bound.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// The runtime ended a listener's task.
    #[error("the task of a listener ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A registry's server.
#[derive(Debug)]
pub struct Server;

/// A server whose addresses are bound and that does not serve yet.
#[derive(Debug)]
pub struct Bound {
    options: ServerOptions,
    api: (TcpListener, SocketAddr),
    admin: Option<(TcpListener, SocketAddr)>,
}

impl Server {
    /// Binds the addresses. From then on the kernel queues connections until they are served.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn bind(options: ServerOptions) -> Result<Bound, ServeError> {
        let api = bind(options.listen, "the registry")?;
        let admin = match options.admin_listen {
            Some(address) => Some(bind(address, "metrics and health")?),
            None => None,
        };
        Ok(Bound {
            options,
            api,
            admin,
        })
    }
}

fn bind(
    address: SocketAddr,
    purpose: &'static str,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Bind {
        address,
        purpose,
        source,
    };
    let listener = listen(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Bound {
    /// Returns the address of the registry.
    pub fn address(&self) -> SocketAddr {
        self.api.1
    }

    /// Returns the address of metrics and health.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// Returns the limits that a [`Registry`] for [`Bound::run_registry`] should have.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Serves the registry in `store` until `shutdown` resolves and connections are drained. The caller closes the
    /// store.
    pub async fn run(
        self,
        store: Store,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let metrics = embedded::metrics(store.clone());
        let registry = embedded::registry(store, self.options.limits.clone());
        self.run_registry(registry, vec![metrics], shutdown).await
    }

    /// Encrypts the connections of the registry from now on.
    pub fn set_tls(&mut self, tls: ServerTls) {
        self.options.tls = Some(tls);
    }

    /// Lets the users and rules of `access` decide about requests from now on.
    pub fn set_access(&mut self, access: &AccessControl) {
        self.options.authenticator = access.authenticator();
        self.options.policy = access.policy();
        self.options.token_issuer = Some(access.token_issuer());
    }

    /// Serves a registry over any pair of ports until `shutdown` resolves and connections are drained. `collectors`
    /// add what the storage counts to the metrics.
    pub async fn run_registry(
        self,
        registry: Registry,
        collectors: Vec<Box<dyn Collector>>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        self.serve(registry, collectors, shutdown.boxed()).await
    }

    /// Does the same. Neither generic nor async, so that the server is compiled with this crate, and not again with
    /// each that runs one.
    fn serve(
        self,
        registry: Registry,
        collectors: Vec<Box<dyn Collector>>,
        shutdown: BoxFuture<'_, ()>,
    ) -> BoxFuture<'_, Result<(), ServeError>> {
        self.serve_until(registry, collectors, shutdown).boxed()
    }

    async fn serve_until(
        self,
        registry: Registry,
        mut collectors: Vec<Box<dyn Collector>>,
        shutdown: BoxFuture<'_, ()>,
    ) -> Result<(), ServeError> {
        let clock = RunningClock::start();
        let serving = Arc::new(());
        if let Some(tls) = &self.options.tls {
            tls.keep_current(&serving).map_err(ServeError::Thread)?;
            collectors.push(Box::new(tls.clone()));
        }
        let metrics = Arc::new(Metrics::new(collectors));
        let requests = TaskTracker::new();
        let api = self.api(&registry, &clock, &metrics, &requests);
        let limits = self.connection_limits(&clock);
        let connections_max = self.options.connections_max;
        let operators = self.connection_limits(&clock);
        let draining = CancellationToken::new();
        // Cancelled by its guard, so the admin listener ends after the registry in every case.
        let registry_ended = CancellationToken::new();
        let registry_runs = registry_ended.clone().drop_guard();
        let tls = self.options.tls.clone();
        let hosts = self.probe_hosts();
        let admin_tls = tls.clone().filter(|_| self.options.admin_tls);
        let admin = self.admin.zip(hosts).map(|((listener, _), hosts)| {
            let state = ProbeState {
                registry,
                metrics,
                draining: draining.clone(),
            };
            let probes = Probes::new(state, hosts);
            let operators = Listener {
                socket: listener,
                tls: admin_tls,
                limits: Arc::new(operators),
                connections_max: ADMIN_CONNECTIONS_MAX.min(connections_max),
                drain: ADMIN_DRAIN,
            };
            tokio::spawn(operators.serve(probes, registry_ended.cancelled_owned()))
        });
        let shutdown = async {
            shutdown.await;
            draining.cancel();
        };
        let listening = Listener {
            socket: self.api.0,
            tls,
            limits: Arc::new(limits),
            connections_max,
            drain: self.options.drain,
        };
        listening.serve(OciFrontEnd(api), shutdown).await;
        drop(serving);
        // A push whose connection was closed saves what it received, so the store must stay open until then.
        requests.close();
        if let Err(_late) = clock.timeout(CUT_REQUESTS_MAX, requests.wait()).await {
            tracing::warn!(
                "requests did not end in time; the bytes that they received last may be lost"
            );
        }
        drop(registry_runs);
        if let Some(admin) = admin {
            admin.await?;
        }
        Ok(())
    }

    /// Returns the hosts that the admin listener serves. `hostnames` are those of the registry; beyond loopback,
    /// probes and collectors of metrics reach this listener by other names.
    fn probe_hosts(&self) -> Option<HostPolicy> {
        let address = self.admin_address()?;
        let loopback = address.ip().to_canonical().is_loopback();
        let hostnames = self.options.hostnames.clone();
        let hostnames = if loopback { hostnames } else { Vec::new() };
        Some(HostPolicy::new(address, hostnames))
    }

    fn connection_limits(&self, clock: &RunningClock) -> ConnectionLimits {
        let options = &self.options;
        ConnectionLimits::new(
            options.header_timeout,
            options.unread_timeout,
            &options.http2,
            clock,
        )
    }

    fn api(
        &self,
        registry: &Registry,
        clock: &RunningClock,
        metrics: &Arc<Metrics>,
        requests: &TaskTracker,
    ) -> Arc<OciState> {
        Arc::new(OciState {
            registry: registry.clone(),
            gate: Gate::new(
                Arc::clone(&self.options.authenticator),
                Arc::clone(&self.options.policy),
            ),
            tokens: self.options.token_issuer.clone(),
            metrics: Arc::clone(metrics),
            kept: KeptAnswers::new(),
            body_idle: self.options.body_idle_timeout,
            clock: clock.clone(),
            manifests: ManifestMemory::new(
                self.options.manifest_budget_bytes,
                self.options.manifest_timeout,
                self.options.manifest_stall,
                clock.clone(),
            ),
            chunk_min_bytes: self.options.chunk_min_bytes,
            mirror_of: self.options.mirror_of.clone(),
            hosts: HostPolicy::new(self.api.1, self.options.hostnames.clone()),
            locations: self.options.locations.clone(),
            requests: requests.clone(),
        })
    }
}
