//! An answer that is kept.
//!
//! Owns: [`KeptAnswer`], and [`BodyMemory`], which counts the bytes of bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use tonnage_engine::Digest;

use crate::oci::RepositoryName;
use crate::telemetry::{AnswerCounters, Pulled};

/// An answer with the status 200. It has a body if it was one to a GET.
#[derive(Debug)]
pub(in crate::frontends::oci) struct KeptAnswer {
    /// The repository that was pulled from.
    pub(in crate::frontends::oci) repository: RepositoryName,
    /// The number that no other repository ever has.
    pub(in crate::frontends::oci) incarnation: Option<u64>,
    /// The digest of its content.
    pub(in crate::frontends::oci) digest: Digest,
    /// All its headers; in place of the id of the request it has an empty one.
    pub(in crate::frontends::oci) headers: HeaderMap,
    pub(in crate::frontends::oci) body: Option<KeptBody>,
    /// The template of its route.
    pub(in crate::frontends::oci) route: &'static str,
    /// Counters for its GETs.
    pub(in crate::frontends::oci) gets: AnswerCounters,
    /// Counters for its HEADs.
    pub(in crate::frontends::oci) heads: AnswerCounters,
}

/// The body of an answer. Its bytes count as memory until the last answer that has them was sent.
#[derive(Debug, Clone)]
pub(in crate::frontends::oci) struct KeptBody {
    pub(in crate::frontends::oci) bytes: Bytes,
    pub(in crate::frontends::oci) kind: Pulled,
}

/// Counts the bytes of all bodies, also while they are being sent. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct BodyMemory(Arc<AtomicUsize>);

/// Bytes that count until they drop.
struct CountedBytes {
    bytes: Box<[u8]>,
    memory: BodyMemory,
}

impl BodyMemory {
    /// Returns a copy of `bytes`; `None` if more than `bytes_max` would count with it.
    pub(super) fn copy(&self, bytes: &[u8], bytes_max: usize) -> Option<Bytes> {
        let with = |before: usize| {
            let after = before.checked_add(bytes.len());
            after.filter(|after| *after <= bytes_max)
        };
        let counting = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, with);
        counting.ok()?;
        Some(Bytes::from_owner(CountedBytes {
            bytes: bytes.into(),
            memory: self.clone(),
        }))
    }

    /// Returns the bytes that count.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
