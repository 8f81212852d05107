//! What the catalog keeps of a manifest, and of who changed it: plain data that commits, transactions and views share.
//!
//! Owns: [`ManifestEntry`], [`Origin`]. Refuses: looking into a manifest.

use bytes::Bytes;

use super::Digest;

/// What the catalog keeps of a manifest: its edges, and attributes that it never looks into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it keeps alive: blobs and manifests it lists, without repeats.
    pub children: Vec<Digest>,
    /// What it refers to. The subject may be absent; the referrer keeps nothing alive.
    pub subject: Option<Digest>,
    /// Opaque to the engine (media type, artifact type); at most
    /// [`crate::limits::MANIFEST_ATTRIBUTES_BYTES_MAX`].
    pub attributes: Bytes,
}

/// Who asked for a transaction; kept in the journal for audit. Both are cut at
/// [`crate::limits::ORIGIN_BYTES_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Authenticated subject, or empty.
    pub actor: String,
    /// Request id, as in the log and the answer's header.
    pub request: String,
}
