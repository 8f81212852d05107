//! References to manifests in a repository: tags and digests.
//!
//! Owns: [`Tag`], [`Reference`].
//! Refuses: every other text. A digest never parses as a tag, because a tag has no colon.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tonnage_engine::limits::TAG_BYTES_MAX;
use tonnage_engine::vocabulary::{Digest, ParseDigestError};

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec, "Pulling manifests").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// The error that a string is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a tag has 1 to {TAG_BYTES_MAX} letters, digits, '_', '.' or '-', and does not begin with '.' or '-'"
)]
pub struct InvalidTag;

impl Tag {
    /// Returns the tag as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts_well = text.bytes().next().is_some_and(word);
        let goes_well = text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-');
        if starts_well && goes_well && text.len() <= TAG_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTag)
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

/// Why a string is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It has a colon, so a digest was meant.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// It has none, so a tag was meant.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: distribution-spec, "Pulling manifests", grammar of `<reference>`.
    #[test]
    fn references_are_tags_or_digests() {
        for good in ["latest", "v1.2.3", "_a", "0", "A-b.C_d", &"x".repeat(128)] {
            assert!(matches!(good.parse(), Ok(Reference::Tag(_))), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "a+b", "ä", &"x".repeat(129)] {
            assert_eq!(
                bad.parse::<Reference>(),
                Err(InvalidReference::Tag(InvalidTag)),
                "{bad:?}"
            );
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!(
            "sha256:0".parse::<Reference>(),
            Err(InvalidReference::Digest(_))
        ));
    }
}
