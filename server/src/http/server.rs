//! The listeners: accepting connections, serving them, draining them at the end.
//!
//! Owns: [`Server`], [`Bound`], [`ServerOptions`].
//! Refuses: opening a store or reading a configuration, which `tools` does; what one connection does, which is `connection`'s.
//!
//! Invariants: addresses are bound before anything is served, so a caller can say where; after shutdown no
//! connection is accepted, requests under way have [`ServerOptions::drain`] to end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tonnage_engine::store::Store;

use super::Api;
use super::accept::Listening;
use super::admin::{self, Admin};
use super::admission::Admission;
use super::host::{HostPolicy, Hostname};
use super::limits::ConnectionLimits;
use super::locations::Locations;
use crate::access::{Gate, GrantAll, Policy};
use crate::clock::RunningClock;
use crate::embedded;
use crate::registry::{Limits, Registry};
use crate::telemetry::Metrics;

/// Connections that wait in the kernel until they are accepted. Where there are more, a client has no answer to its SYN and sends it again
/// after 1 s, 2 s, 4 s and so on.
const BACKLOG: u32 = 1024;
/// Connections of the admin listener at a time.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Time that the admin listener's own connections have to end, after the registry's.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
/// Time that requests have to end once their connections are cut off: an upload's last writes, or one commit.
const CUT_OFF: Duration = Duration::from_secs(10);

/// How a server listens and behaves.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Address of the registry; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of metrics and health; `None` for neither.
    pub admin_listen: Option<SocketAddr>,
    /// Who may do what.
    pub policy: Arc<dyn Policy>,
    /// Bounds of manifests and tags.
    pub limits: Limits,
    /// Time for the head of a request to arrive, the wait for it on an open connection included.
    pub header_timeout: Duration,
    /// Time a client may keep silent inside a body.
    pub body_idle_timeout: Duration,
    /// Time for a whole manifest to arrive, and to wait for the memory it needs.
    pub manifest_timeout: Duration,
    /// Memory for the bodies of manifests that are being pushed, in bytes; further ones wait.
    pub manifest_budget_bytes: usize,
    /// Time after which a manifest of which nothing comes is rejected, while others wait for its memory.
    pub manifest_stall: Duration,
    /// Time a client may leave an answer unread.
    pub unread_timeout: Duration,
    /// Most connections at a time. When all places are taken an idle one leaves for a new one. Each takes a file descriptor from the store's.
    pub connections_max: usize,
    /// Shortest chunk of an upload that clients are asked for, in bytes; 0: none. Shorter ones are taken too.
    pub chunk_min_bytes: u64,
    /// Hosts of the registries whose content is mirrored here. A pull with `ns=` of another is 404; if there are none, `ns` is ignored.
    pub mirror_of: Vec<String>,
    /// Hosts under which clients reach the registry. On loopback, others than these and loopback's own are refused; elsewhere so are others
    /// than these, if there are any.
    pub hostnames: Vec<Hostname>,
    /// How the locations of uploads, blobs and manifests are written.
    pub locations: Locations,
    /// Bounds of HTTP/2.
    pub http2: Http2Options,
    /// Time that requests under way have to end after shutdown.
    pub drain: Duration,
}

/// Bounds of one HTTP/2 connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// Most requests at a time.
    pub streams: u32,
    /// What a client may send in one request before it was read.
    pub stream_window_bytes: u32,
    /// The same for all requests of a connection together.
    pub connection_window_bytes: u32,
    /// Largest head of a request, names and values.
    pub header_bytes: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            streams: 128,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 4 << 20,
            // 1024 byte ranges take 23 KB, and hyper's own default is 16 KiB.
            header_bytes: 64 << 10,
        }
    }
}

impl Default for ServerOptions {
    /// Loopback, everybody may do everything.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 5001))),
            policy: Arc::new(GrantAll),
            limits: Limits::default(),
            // Longer than clients keep connections for their next request (Go's transports: 90 s).
            header_timeout: Duration::from_secs(100),
            // A client that reads a slow disk, or whose link fails for a moment, is silent for minutes.
            body_idle_timeout: Duration::from_mins(5),
            manifest_timeout: Duration::from_mins(2),
            // Sixteen of the largest, thousands of the usual ones.
            manifest_budget_bytes: 64 << 20,
            manifest_stall: Duration::from_secs(2),
            unread_timeout: Duration::from_mins(5),
            connections_max: 4096,
            chunk_min_bytes: 0,
            mirror_of: Vec::new(),
            hostnames: Vec::new(),
            locations: Locations::Relative,
            http2: Http2Options::default(),
            drain: Duration::from_secs(30),
        }
    }
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address could not be taken.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The runtime ended a listener's task.
    #[error("a listener's task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A registry's server.
#[derive(Debug)]
pub struct Server;

/// A server that has its addresses and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    options: ServerOptions,
    api: (TcpListener, SocketAddr),
    admin: Option<(TcpListener, SocketAddr)>,
}

impl Server {
    /// Takes the addresses. Connections are let in from now on, and wait until they are served.
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart does not wait for the connections of the run before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
    /// Where the registry listens.
    pub fn address(&self) -> SocketAddr {
        self.api.1
    }

    /// Where metrics and health are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// The bounds that a [`Registry`] for [`Bound::run_registry`] should keep.
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
        let registry = embedded::registry(store, self.options.limits.clone());
        self.run_registry(registry, shutdown).await
    }

    /// Serves a registry over any pair of ports until `shutdown` resolves and connections are drained.
    pub async fn run_registry(
        self,
        registry: Registry,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let clock = RunningClock::start();
        let metrics = Arc::new(Metrics::new());
        let (under_way, mut all_ended) = mpsc::channel(1);
        let api = self.api(&registry, &clock, &metrics, under_way);
        let limits = ConnectionLimits::new(&self.options, &clock, Some(registry.clone()));
        let connections_max = self.options.connections_max;
        let operators = ConnectionLimits::new(&self.options, &clock, None);
        let draining = Arc::new(AtomicBool::new(false));
        let (stop_admin, admin_stopped) = tokio::sync::oneshot::channel::<()>();
        let admin = self.admin.map(|(listener, address)| {
            let admin = Admin {
                registry,
                metrics,
                draining: Arc::clone(&draining),
            };
            // `hostnames` are those of the registry: probes and collectors of metrics reach this listener by others.
            let loopback = address.ip().to_canonical().is_loopback();
            let hostnames = if loopback {
                self.options.hostnames.clone()
            } else {
                Vec::new()
            };
            let hosts = HostPolicy::new(address, hostnames);
            let service = TowerToHyperService::new(admin::router(admin, hosts));
            let stopped = async {
                // The sender drops when the registry is done; either way it is time.
                admin_stopped.await.unwrap_or_default();
            };
            let operators = Listening {
                listener,
                limits: Arc::new(operators),
                connections_max: ADMIN_CONNECTIONS_MAX.min(connections_max),
                drain: ADMIN_DRAIN,
            };
            tokio::spawn(operators.serve(service, stopped))
        });
        let service = service_fn(move |request: Request<Incoming>| {
            let api = Arc::clone(&api);
            async move { Ok::<_, Infallible>(api.answer_whole(request).await) }
        });
        let shutdown = async {
            shutdown.await;
            draining.store(true, Ordering::Relaxed);
        };
        let api = Listening {
            listener: self.api.0,
            limits: Arc::new(limits),
            connections_max,
            drain: self.options.drain,
        };
        api.serve(service, shutdown).await;
        // A push whose connection was cut puts away what it received before the store may close.
        if let Err(_late) = clock.timeout(CUT_OFF, all_ended.recv()).await {
            tracing::warn!("requests are still under way; what they received last may be lost");
        }
        drop(stop_admin);
        if let Some(admin) = admin {
            admin.await?;
        }
        Ok(())
    }

    fn api(
        &self,
        registry: &Registry,
        clock: &RunningClock,
        metrics: &Arc<Metrics>,
        under_way: mpsc::Sender<Infallible>,
    ) -> Arc<Api> {
        Arc::new(Api {
            registry: registry.clone(),
            gate: Gate::new(Arc::clone(&self.options.policy)),
            metrics: Arc::clone(metrics),
            body_idle: self.options.body_idle_timeout,
            clock: clock.clone(),
            manifests: Admission::new(
                self.options.manifest_budget_bytes,
                self.options.manifest_timeout,
                self.options.manifest_stall,
                clock.clone(),
            ),
            chunk_min_bytes: self.options.chunk_min_bytes,
            mirror_of: self.options.mirror_of.clone(),
            hosts: HostPolicy::new(self.api.1, self.options.hostnames.clone()),
            locations: self.options.locations.clone(),
            under_way,
        })
    }
}
