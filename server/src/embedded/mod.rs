//! Implements the registry's ports on the embedded engine.
//!
//! Owns: [`registry`], [`ports`], [`metrics()`], and the map from the engine's errors to the registry's.
//! Refuses: decisions; each method calls the engine's method of the same meaning.

mod blobs;
mod catalog;
mod metrics;

use std::io;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use tonnage_engine::Store;

use crate::registry::ports::{BlobStore, Catalog};
use crate::registry::{Error, Limits, Registry, Shortage};

/// Creates a registry over an open store.
pub fn registry(store: Store, limits: Limits) -> Registry {
    let (blobs, catalog) = ports(store);
    Registry::new(blobs, catalog, limits)
}

/// Returns the two ports of an open store.
pub fn ports(store: Store) -> (Arc<dyn BlobStore>, Arc<dyn Catalog>) {
    let catalog = catalog::StoreCatalog(store.clone());
    (Arc::new(blobs::StoreBlobs(store)), Arc::new(catalog))
}

/// Returns a collector of the metrics of an open store.
pub fn metrics(store: Store) -> Box<dyn Collector> {
    Box::new(metrics::StoreMetrics(store))
}

/// Returns the resource that was exhausted when an operation was not attempted, by its `cause`.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "few kinds of errors are shortages"
)]
fn shortage(error: &tonnage_engine::Error, cause: &io::Error) -> Shortage {
    match cause.kind() {
        io::ErrorKind::FileTooLarge => Shortage::FileSize,
        io::ErrorKind::OutOfMemory => Shortage::Memory,
        io::ErrorKind::WouldBlock => Shortage::Threads,
        _ if error.is_out_of_files() => Shortage::OpenFiles,
        _ => Shortage::Other,
    }
}

/// Maps an error of the engine to one of the registry. Its text may name paths, so it becomes the cause, which is only
/// logged.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the engine's error is non-exhaustive; other kinds are internal errors"
)]
fn error(error: tonnage_engine::Error) -> Error {
    use tonnage_engine::Error as Engine;
    match error {
        Engine::DigestMismatch { expected, found } => Error::DigestMismatch {
            expected,
            found: Box::new(found),
        },
        Engine::UnknownUpload => Error::UploadUnknown,
        Engine::UploadBusy => Error::UploadBusy,
        Engine::OutOfOrder { first, offset } => Error::OutOfOrder { first, offset },
        Engine::TooManyUploads { max } => Error::TooManyUploads { max },
        Engine::NoSpace { .. } => Error::Full(Arc::new(error)),
        Engine::NearlyFull { free, min } => Error::NearlyFull { free, min },
        Engine::NoSpaceAnnounced {
            announced, free, ..
        } => Error::NoRoom { announced, free },
        Engine::NotAttempted { ref source, .. } => Error::NotAttempted {
            shortage: shortage(&error, source),
            cause: Arc::new(error),
        },
        Engine::Poisoned { .. } => Error::ReadOnly(Arc::new(error)),
        Engine::Corrupt(_) => Error::Damaged(Arc::new(error)),
        Engine::Closed => Error::Closing,
        other => Error::Internal(Arc::new(other)),
    }
}
