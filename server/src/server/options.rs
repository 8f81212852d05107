//! How a server listens and behaves.
//!
//! Owns: [`ServerOptions`] and its defaults.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{Anonymous, Authenticator, GrantAll, Policy, TokenIssuer};
use crate::frontends::oci::Locations;
use crate::registry::Limits;
use crate::tls::ServerTls;
use crate::transport::connection_limits::Http2Options;
use crate::transport::host::Hostname;

/// How a server listens and behaves.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Address of the registry; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of metrics and health; `None` for neither.
    pub admin_listen: Option<SocketAddr>,
    /// How connections to `listen` are encrypted; `None` if they are not.
    pub tls: Option<ServerTls>,
    /// Whether connections to `admin_listen` are encrypted, too, if those of the registry are.
    pub admin_tls: bool,
    /// Who sends a request.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who may do what.
    pub policy: Arc<dyn Policy>,
    /// What issues tokens that `authenticator` accepts; `None` for no token service.
    pub token_issuer: Option<TokenIssuer>,
    /// Limits on manifests and tags.
    pub limits: Limits,
    /// Time for the head of a request to arrive, including the wait for it on an open connection.
    pub header_timeout: Duration,
    /// Longest pause of a client inside a body.
    pub body_idle_timeout: Duration,
    /// Time for a whole manifest to arrive, and as much to wait for the memory that it needs.
    pub manifest_timeout: Duration,
    /// Memory for the bodies of manifests that are being pushed, in bytes; further ones wait.
    pub manifest_budget_bytes: usize,
    /// Time after which a manifest that receives nothing is rejected, while others wait for its memory.
    pub manifest_stall: Duration,
    /// Longest time for which a client may leave an answer unread.
    pub unread_timeout: Duration,
    /// Most connections at a time. When all slots are taken an idle one is closed for a new one. Each takes a file
    /// descriptor from the store's.
    pub connections_max: usize,
    /// Shortest chunk of an upload that clients should send, in bytes; 0 for no limit. Shorter ones are accepted too.
    pub chunk_min_bytes: u64,
    /// Hosts of the registries whose content is mirrored here. A pull with `ns=` of another is 404; if there are none,
    /// `ns` is ignored.
    pub mirror_of: Vec<String>,
    /// Hosts under which clients reach the registry. On loopback only these and loopback's own are accepted; elsewhere
    /// only these and IP addresses, or any host if there are none.
    pub hostnames: Vec<Hostname>,
    /// How the locations of uploads, blobs and manifests are written.
    pub locations: Locations,
    /// Limits of HTTP/2.
    pub http2: Http2Options,
    /// Time that active requests have to end after shutdown.
    pub drain: Duration,
}

impl Default for ServerOptions {
    /// Returns options that listen on loopback and allow everything to every client.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 5001))),
            tls: None,
            admin_tls: false,
            authenticator: Arc::new(Anonymous),
            policy: Arc::new(GrantAll),
            token_issuer: None,
            limits: Limits::default(),
            // Longer than clients keep connections for their next request (Go's transports: 90 s).
            header_timeout: Duration::from_secs(100),
            // A client that reads a slow disk, or whose link fails briefly, pauses for minutes.
            body_idle_timeout: Duration::from_mins(5),
            manifest_timeout: Duration::from_mins(2),
            // Room for 16 manifests of the largest size, or thousands of usual ones.
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
