//! The embedded engine behind the registry's ports.
//!
//! Owns: [`registry`], [`ports`], [`metrics()`], and what the engine's errors mean to the registry.
//! Refuses: decisions; each method is the engine's of the same meaning.

mod blobs;
mod catalog;
mod metrics;

use std::io;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use tonnage_engine::Store;

use crate::registry::ports::{BlobStore, Catalog};
use crate::registry::{Error, Limits, Registry, Shortage};

/// A registry over an open store.
pub fn registry(store: Store, limits: Limits) -> Registry {
    let (blobs, catalog) = ports(store);
    Registry::new(blobs, catalog, limits)
}

/// The two ports of an open store.
pub fn ports(store: Store) -> (Arc<dyn BlobStore>, Arc<dyn Catalog>) {
    let catalog = catalog::StoreCatalog(store.clone());
    (Arc::new(blobs::StoreBlobs(store)), Arc::new(catalog))
}

/// The metrics of an open store, to be registered beside those of the server.
pub fn metrics(store: Store) -> Box<dyn Collector> {
    Box::new(metrics::StoreMetrics(store))
}

/// What there was too little of for an operation that was not attempted, by its `cause`.
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

/// What the engine's error means to a client. Its text may name paths, so it becomes the cause, for the log.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the engine's error grows; what is new is ours to explain"
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
