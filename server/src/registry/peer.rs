//! The port to another registry.
//!
//! Owns: [`Peer`], what is asked of one, and why it may not get an answer. Refuses: trust. Whoever takes content from a
//! peer checks length and digest.

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tonnage_engine::vocabulary::Digest;

/// Another registry, from which content can be fetched.
pub trait Peer: Send + Sync + Debug {
    /// Fetches content by its digest.
    ///
    /// # Errors
    ///
    /// Any of [`PeerError`]. Those of the content itself may also end its stream.
    fn fetch(&self, wanted: Wanted) -> BoxFuture<'_, Result<PeerContent, PeerError>>;
}

/// What is asked of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The repository, by its name here.
    pub repository: String,
    /// The digest.
    pub digest: Digest,
    /// What it is there.
    pub kind: ContentKind,
}

/// What content is in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentKind {
    /// A blob.
    Blob,
    /// A manifest.
    Manifest,
}

/// Content that arrives from a peer, not checked yet.
pub struct PeerContent {
    /// Its length in bytes, as the peer announced it.
    pub length: Option<u64>,
    /// Its bytes. A peer that sends too slowly ends them with [`PeerError::TooSlow`].
    pub bytes: BoxStream<'static, Result<Bytes, PeerError>>,
}

impl Debug for PeerContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut content = f.debug_struct("PeerContent");
        content.field("length", &self.length);
        content.finish_non_exhaustive()
    }
}

/// Why a peer did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It cannot be reached, or did not answer in time.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It does not have the content.
    #[error("it does not have the content (404)")]
    NotFound,
    /// It rejects the credentials, or requires some.
    #[error("it denies access: {0}")]
    Denied(String),
    /// It answered something else.
    #[error("it answered {0}")]
    Status(u16),
    /// It redirects where requests may not go.
    #[error("it redirects to {0}")]
    Redirect(String),
    /// Its answer ended before it was complete.
    #[error("its answer broke off: {0}")]
    Broken(String),
    /// It sent too little in a while.
    #[error("it sends too slowly")]
    TooSlow,
}

impl PeerError {
    /// Returns whether this is about the peer, and not about the content: it would not send other content, either.
    pub(crate) fn is_about_peer(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TooSlow)
    }
}
