//! The catalog's entry of a manifest, and the origin of a change: plain data that commits, transactions and views
//! share.
//!
//! Owns: [`ManifestEntry`], [`Origin`]. Refuses: parsing a manifest.

use bytes::Bytes;

use super::Digest;

/// The catalog's entry of a manifest: its edges, and attributes that it does not interpret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// Blobs and manifests that it lists and keeps alive, without repeats.
    pub children: Vec<Digest>,
    /// Manifest that it refers to. The subject may be absent, and the reference keeps nothing alive.
    pub subject: Option<Digest>,
    /// Opaque to the engine (media type, artifact type); at most
    /// [`crate::limits::MANIFEST_ATTRIBUTES_BYTES_MAX`].
    pub attributes: Bytes,
}

/// Who asked for a transaction; stored in the journal for audit. Both parts are cut at
/// [`crate::limits::ORIGIN_BYTES_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Authenticated subject, or empty.
    pub actor: String,
    /// Request id, as in the log and the answer's header.
    pub request: String,
}
