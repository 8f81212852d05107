//! The vocabulary of a commit: the types that use cases, ports and the store share.
//!
//! Owns: [`Batch`] and [`Change`], what they name ([`ManifestEntry`], [`Origin`], [`Require`]), and the types of
//! uploads and clients. [`Digest`] and [`Algorithm`] belong to it. Refuses: behaviour of a store. No type here holds a
//! file, a lease or a lock, so another store can use all of them.

mod change;
mod client;
mod entry;
mod require;
mod upload;

pub use self::change::{Batch, Change};
pub use self::client::ClientId;
pub use self::entry::{ManifestEntry, Origin};
pub use self::require::Require;
pub use self::upload::{ParseUploadIdError, UploadClaim, UploadId, UploadPosition, UploadSpec};
pub use crate::digest::{Algorithm, Digest, ParseDigestError};
