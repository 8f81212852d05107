//! Types for the terms of the OCI distribution and image specifications.
//!
//! Owns: parsing and printing of names, references, ranges, media types, manifests, error codes, pages.
//! Refuses: I/O, HTTP types, stored state.
//!
//! Invariant: every value is valid. Text from a client is parsed into one of these types before any other use. A digest
//! is [`tonnage_engine::vocabulary::Digest`].

pub mod error;
mod json_text;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod page;
pub mod pattern;
pub mod range;
pub mod reference;

pub use error::Code;
pub(crate) use json_text::{cut_to_json_bytes, json_bytes};
pub use manifest::{Child, Kind, Manifest, ManifestError, Place, stored_annotations};
pub use media_type::MediaType;
pub use name::{InvalidName, RepositoryName};
pub use page::{InvalidPage, Page};
pub use pattern::{InvalidPattern, RepositoryPattern};
pub use range::{ChunkRange, RangeAnswer};
pub use reference::{InvalidReference, InvalidTag, Reference, Tag};
pub use tonnage_engine::vocabulary::{Algorithm, Digest, ParseDigestError};
