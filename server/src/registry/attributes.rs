//! Attributes of a manifest that the registry stores with it: media type and artifact type. Storage does not interpret
//! them.
//!
//! Invariant: they are JSON with field names, so a later release can add fields that an older one ignores.

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
        // The limits in `oci` keep both types far below this.
        if bytes.len() > MANIFEST_ATTRIBUTES_BYTES_MAX {
            return Err(Error::internal(
                "the attributes of a manifest exceed the catalog's limit",
            ));
        }
        Ok(bytes.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::internal)
    }
}

/// Returns whether bytes are valid attributes, for the fuzzers of tests/.
#[cfg(feature = "fuzz-entry")]
pub fn read_attributes(bytes: &[u8]) -> bool {
    Attributes::decode(bytes).is_ok()
}
