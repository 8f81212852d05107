//! What the registry keeps beside a manifest, opaque to storage: its media type and artifact type.
//!
//! Invariant: written as JSON with names, so that a later release may add to it and an older one reads on.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tonnage_engine::limits::MANIFEST_ATTRIBUTES_BYTES_MAX;

use super::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attributes {
    pub(super) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
}

impl Attributes {
    pub(super) fn encode(&self) -> Result<Bytes> {
        let bytes = serde_json::to_vec(self).map_err(Error::internal)?;
        // The bounds in `oci` keep both types far below this.
        if bytes.len() > MANIFEST_ATTRIBUTES_BYTES_MAX {
            return Err(Error::internal(
                "a manifest's attributes exceed what the catalog takes",
            ));
        }
        Ok(bytes.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::internal)
    }
}

/// Whether bytes of the disk are attributes, for the fuzzers of tests/.
#[cfg(feature = "fuzz-entry")]
pub fn read_attributes(bytes: &[u8]) -> bool {
    Attributes::decode(bytes).is_ok()
}
