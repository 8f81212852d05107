//! Where the credentials of a build come from.
//!
//! Owns: [`Provenance`]: who issued the token of a build, and the claims that lead back to it.
//! Refuses: verification of that token, and the meaning of a claim.
//!
//! Invariant: encoded as JSON, it has at most [`PROVENANCE_BYTES_MAX`] bytes. That also holds for one that is decoded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oci::{cut_to_json_bytes, json_bytes};

/// Most bytes of an encoded provenance.
pub const PROVENANCE_BYTES_MAX: usize = 2048;
/// Most encoded bytes of the issuer, and of the subject; longer ones are cut.
const NAME_BYTES_MAX: usize = 512;
/// Bytes of an encoded provenance without its texts, at most: the names of the fields, and what separates them.
const FRAME_BYTES: usize = 64;
/// Bytes of an encoded claim without its two texts: four quotes, a colon and a comma.
const CLAIM_FRAME_BYTES: usize = 6;

/// Where the credentials of a build come from: the verified token of another issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Encoded")]
pub struct Provenance {
    issuer: String,
    subject: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    claims: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
}

/// A provenance as it is decoded, without a bound.
#[derive(Deserialize)]
struct Encoded {
    issuer: String,
    subject: String,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    #[serde(default)]
    incomplete: bool,
}

impl From<Encoded> for Provenance {
    fn from(encoded: Encoded) -> Self {
        let mut provenance = Self::new(encoded.issuer, encoded.subject, encoded.claims);
        provenance.incomplete |= encoded.incomplete;
        provenance
    }
}

impl Provenance {
    /// Creates the provenance of a token with this issuer, subject and claims. Claims are kept in the order of their
    /// names. From the first that does not fit in [`PROVENANCE_BYTES_MAX`], they are dropped. An issuer or subject of
    /// more than 512 bytes is cut.
    pub fn new(issuer: String, subject: String, claims: BTreeMap<String, String>) -> Self {
        let mut provenance = Self {
            issuer,
            subject,
            claims,
            incomplete: false,
        };
        provenance.shorten();
        provenance
    }

    /// Returns the issuer of the token.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the subject of the token, which its issuer chose.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the claims that are kept.
    pub fn claims(&self) -> &BTreeMap<String, String> {
        &self.claims
    }

    /// Returns whether claims were dropped, or the issuer or the subject was cut.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    fn shorten(&mut self) {
        for name in [&mut self.issuer, &mut self.subject] {
            let kept = cut_to_json_bytes(name, NAME_BYTES_MAX).len();
            self.incomplete |= kept < name.len();
            name.truncate(kept);
        }
        let mut bytes = FRAME_BYTES + json_bytes(&self.issuer) + json_bytes(&self.subject);
        let first_dropped = self.claims.iter().find(|(name, value)| {
            bytes += CLAIM_FRAME_BYTES + json_bytes(name) + json_bytes(value);
            bytes > PROVENANCE_BYTES_MAX
        });
        if let Some(name) = first_dropped.map(|(name, _)| name.clone()) {
            self.claims.split_off(&name);
            self.incomplete = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(count: usize, value: &str) -> BTreeMap<String, String> {
        let claim = |at| (format!("claim_{at:03}"), value.to_owned());
        (0..count).map(claim).collect()
    }

    fn encoded(provenance: &Provenance) -> usize {
        let bytes = serde_json::to_vec(provenance).unwrap();
        let decoded: Provenance = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(decoded, *provenance);
        bytes.len()
    }

    /// Guards: what fits is kept whole; of the rest, whole claims are dropped, and the result says so. No character
    /// makes the encoded form longer than the bound, and a longer one is cut when it is decoded.
    #[test]
    fn a_provenance_is_bounded() {
        let whole = Provenance::new("https://issuer".into(), "job".into(), claims(20, "short"));
        assert_eq!((whole.claims().len(), whole.is_incomplete()), (20, false));
        encoded(&whole);
        let long = [
            "x",
            "\"",
            "\\",
            "\n",
            "\u{1}",
            "\u{7f}",
            "\u{e4}",
            "\u{1f600}",
        ];
        for character in long {
            let name = character.repeat(4000);
            let cut = Provenance::new(name.clone(), name, claims(100, &character.repeat(50)));
            assert!(cut.is_incomplete());
            assert!(
                !cut.claims().is_empty() && cut.claims().len() < 100,
                "{character:?}"
            );
            assert!(
                cut.claims()
                    .values()
                    .all(|value| value.chars().count() == 50)
            );
            let bytes = encoded(&cut);
            assert!(bytes <= PROVENANCE_BYTES_MAX, "{character:?}: {bytes}");
        }
        let unbounded = serde_json::json!({
            "issuer": "i", "subject": "s", "claims": claims(1000, "value")
        });
        let decoded: Provenance = serde_json::from_value(unbounded).unwrap();
        assert!(decoded.is_incomplete() && encoded(&decoded) <= PROVENANCE_BYTES_MAX);
    }
}
