//! What the load client is asked to do, and what it reports: the protocol between the runner and the client.
//!
//! Owns: [`Job`], [`Outcome`]. Both are JSON on a pipe. Refuses: how requests are sent.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::content::Content;

/// A server; with `ca`, the certificate to trust, over TLS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub ca: Option<PathBuf>,
}

/// One load: `work`, over `connections` at a time, until the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub endpoint: Endpoint,
    pub connections: usize,
    pub until: Until,
    pub work: Work,
}

/// When a load ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Until {
    /// After so many units of work, over all connections.
    Count(u64),
    /// After a time.
    Seconds(f64),
    /// When this file exists.
    Exists(PathBuf),
}

/// One unit of work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Pulls of whole blobs, in turn; every byte is compared.
    Pull { blobs: Vec<Blob> },
    /// Ranges of one blob, which is read as `parts` parts side by side; every byte is compared.
    Ranges {
        blob: Blob,
        parts: u64,
        shape: Shape,
    },
    /// Requests, in turn; every answer is compared with what is expected.
    Requests { targets: Vec<Target> },
    /// Pushes by POST, one PATCH, PUT; the digest of what has none is computed while sending.
    Push { blobs: Vec<Blob> },
    /// Pushes of small blobs by POST, PUT. Their seeds are counted up from `seed`.
    PushSmall { seed: u64, length: u64 },
    /// Pushes of whole small images: config, layer, manifest with a tag. Seeds as above.
    PushImages { seed: u64, length: u64 },
}

/// A blob and its digest if that is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blob {
    pub content: Content,
    pub digest: Option<String>,
}

/// How a client reads ranges.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Shape {
    /// `bytes=a-b`, read to their end.
    Bounded { bytes: u64 },
    /// The same, but every eighth is dropped in its middle and resumed on a new connection.
    Resumed { bytes: u64 },
    /// `bytes=a-`, dropped after so many bytes.
    OpenEnded { bytes: u64 },
}

/// One request and its expected answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    pub method: String,
    pub path: String,
    /// The body; `None` for the answer to a HEAD.
    pub body: Option<String>,
    pub blob: Option<Content>,
}

/// The result of a load.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub seconds: f64,
    pub units: u64,
    pub bytes: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// From the last byte of a push to its 201: the median.
    pub tail_ms: Option<f64>,
    /// What was in the sockets of a dropped answer, which the client did not read, in KiB: the median and the most.
    pub unread_p50_kib: Option<f64>,
    pub unread_max_kib: Option<f64>,
    /// The cipher that was negotiated.
    pub cipher: Option<String>,
}
