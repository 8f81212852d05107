//! Attributes of a manifest that the registry stores with it: media type, artifact type, and the push that entered it.
//! Storage does not interpret them.
//!
//! Owns: [`Attributes`], [`PushRecord`], and which push is recorded.
//!
//! Invariants: they are JSON with field names, so a later release can add fields that an older one ignores. They fit in
//! the catalog's limit, because each of their parts is bounded.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tonnage_engine::limits::MANIFEST_ATTRIBUTES_BYTES_MAX;

use super::error::{Error, Result};
use crate::access::{Provenance, Requester};
use crate::oci::cut_to_json_bytes;
use crate::wall_clock::now_unix_s;

/// Most bytes as JSON of a subject and of a request id in a record; longer ones are cut.
const ORIGIN_BYTES_MAX: usize = 256;

/// The types of a manifest. Decoding skips everything else, because each pull does it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attributes {
    pub(super) media_type: String,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
}

/// The push that entered a manifest in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRecord {
    /// Subject that pushed it; empty for an anonymous caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When it was pushed, in Unix seconds, by the clock of the registry.
    pub unix_s: u64,
    /// Id of the request.
    pub request: String,
    /// Where the credentials come from, if a build had them from another issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// Attributes as they are encoded.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encoded<'a> {
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    pushed: &'a PushRecord,
}

/// The part of attributes that [`Attributes`] skips.
#[derive(Deserialize)]
struct Pushed {
    pushed: PushRecord,
}

impl Attributes {
    /// Encodes the types with the push to be recorded.
    pub(super) fn encode(&self, pushed: &PushRecord) -> Result<Bytes> {
        let encoded = Encoded {
            media_type: &self.media_type,
            artifact_type: self.artifact_type.as_deref(),
            pushed,
        };
        let bytes = serde_json::to_vec(&encoded).map_err(Error::internal)?;
        // The limits of the types in `oci`, of a record and of a provenance keep them below this.
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

impl PushRecord {
    /// Records a push that `requester` asks for now.
    pub(super) fn now(requester: &Requester) -> Self {
        let cut = |text| cut_to_json_bytes(text, ORIGIN_BYTES_MAX).to_owned();
        Self {
            by: cut(&requester.caller.subject),
            unix_s: now_unix_s(),
            request: cut(&requester.request_id),
            provenance: requester.caller.provenance.as_deref().cloned(),
        }
    }

    /// Returns the record in the attributes of a manifest; `None` if they have none.
    pub(crate) fn decode(attributes: &[u8]) -> Option<Self> {
        let decoded = serde_json::from_slice::<Pushed>(attributes).ok();
        decoded.map(|decoded| decoded.pushed)
    }

    /// Returns which push to record, this one or the one that is recorded in `known`, the attributes that the
    /// repository has.
    ///
    /// The first push entered the manifest, so a later one does not replace it: a copy of an image under another tag
    /// must not hide its build. A build that pushes what someone pushed by hand does replace it, because only its
    /// record says how the content was made.
    pub(super) fn or_known(self, known: Option<&[u8]>) -> Self {
        let known = known.and_then(Self::decode);
        match known {
            Some(known) if known.provenance.is_some() || self.provenance.is_none() => known,
            _ => self,
        }
    }
}

/// Returns whether bytes are valid attributes, for the fuzzers of tests/.
#[cfg(feature = "fuzz-entry")]
pub fn read_attributes(bytes: &[u8]) -> bool {
    PushRecord::decode(bytes);
    Attributes::decode(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::access::Caller;
    use crate::oci::Manifest;

    fn record(by: &str, issuer: Option<&str>) -> PushRecord {
        let provenance =
            issuer.map(|issuer| Provenance::new(issuer.into(), "job".into(), BTreeMap::new()));
        PushRecord::now(&Requester {
            caller: Caller {
                subject: by.to_owned(),
                provenance: provenance.map(Arc::new),
                ..Caller::default()
            },
            request_id: "id".to_owned(),
        })
    }

    /// Returns the attributes of a manifest with the longest types that a push may have, and one byte more if `more`.
    fn longest_types(more: bool) -> Option<Attributes> {
        let artifact_type = "\"".repeat(512) + if more { "x" } else { "" };
        let media_type = format!("application/{}+json", "x".repeat(238));
        let text = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "artifactType": artifact_type, "layers": [],
            "config": {"mediaType": "a/b", "size": 2, "digest": format!("sha256:{:064}", 0)},
        });
        let parsed = Manifest::parse(text.to_string().as_bytes(), None).ok()?;
        Some(Attributes {
            media_type: parsed.media_type.to_string(),
            artifact_type: parsed.artifact_type,
        })
    }

    /// Guards: the longest types and the longest record fit together, so no push fails because of its provenance; both
    /// decode as what was encoded.
    #[test]
    fn the_longest_attributes_fit() {
        assert!(longest_types(true).is_none());
        let types = longest_types(false).unwrap();
        assert_eq!(types.media_type.len(), 255);
        for character in ["x", "\"", "\u{1}", "\u{1f600}"] {
            let long = character.repeat(9000);
            let claim = |at| (format!("{at:04}"), "value".to_owned());
            let claims = (0..1000).map(claim).collect();
            let provenance = Provenance::new(long.clone(), long.clone(), claims);
            let caller = Caller {
                subject: long.clone(),
                provenance: Some(Arc::new(provenance)),
                ..Caller::default()
            };
            let request_id = long;
            let mut pushed = PushRecord::now(&Requester { caller, request_id });
            pushed.unix_s = u64::MAX;
            let bytes = types.encode(&pushed).unwrap();
            assert_eq!(Attributes::decode(&bytes).unwrap(), types);
            assert_eq!(PushRecord::decode(&bytes), Some(pushed));
        }
    }

    /// Guards: the first push stays recorded, unless only the new one has a provenance; attributes without a record
    /// get one.
    #[test]
    fn the_first_push_is_recorded() {
        let types = longest_types(false).unwrap();
        let person = record("alice", None);
        let build = record("ci", Some("https://first"));
        let other = record("bob", None);
        let later = record("ci", Some("https://second"));
        for (known, new, expected) in [
            (&person, &other, &person),
            (&person, &build, &build),
            (&build, &other, &build),
            (&build, &later, &build),
        ] {
            let known = types.encode(known).unwrap();
            assert_eq!(new.clone().or_known(Some(&known)), *expected);
        }
        assert_eq!(person.clone().or_known(None), person);
        let without = br#"{"mediaType":"a/b"}"#;
        assert_eq!(person.clone().or_known(Some(without)), person);
    }
}
