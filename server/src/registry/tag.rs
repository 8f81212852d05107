//! Conditions under which a tag or manifest is changed: compare-and-set for clients.
//!
//! Owns: [`Precondition`] and the preconditions of the commit that it implies.
//! Source: RFC 9110 section 13.1; distribution-spec leaves it open, and permits 412.

use tonnage_engine::vocabulary::{Digest, Require};

use super::ports::RepositoryView;
use super::{Error, Result};
use crate::oci::Reference;

/// A condition on the reference that a request changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// It exists (`If-Match: *`).
    Exists,
    /// It is one of these (`If-Match`).
    IsOneOf(Vec<Digest>),
    /// It does not exist (`If-None-Match: *`).
    Absent,
    /// It is none of these (`If-None-Match`).
    IsNoneOf(Vec<Digest>),
}

impl Precondition {
    /// Checks the condition now, and returns preconditions by which the commit checks it again.
    pub(super) async fn requires(
        &self,
        repository: Option<&dyn RepositoryView>,
        reference: &Reference,
    ) -> Result<Option<Require>> {
        if *self == Self::None {
            return Ok(None);
        }
        let current = match (repository, reference) {
            (None, _) => None,
            (Some(repository), Reference::Tag(tag)) => repository.tag(tag.as_str()).await?,
            (Some(repository), Reference::Digest(digest)) => {
                let entry = repository.manifest(*digest).await?;
                entry.map(|entry| entry.digest)
            }
        };
        if !self.holds(current) {
            return Err(Error::PreconditionFailed);
        }
        Ok(match (reference, current) {
            // Not its current digest: that may change while the condition still holds.
            (Reference::Tag(tag), _) if *self == Self::Exists => {
                Some(Require::TagExists(tag.as_str().to_owned()))
            }
            (Reference::Tag(tag), digest) => Some(Require::Tag {
                tag: tag.as_str().to_owned(),
                digest,
            }),
            (Reference::Digest(_), Some(digest)) => Some(Require::Manifest(digest)),
            // Content named by digest never changes, so there is no race.
            (Reference::Digest(_), None) => None,
        })
    }

    fn holds(&self, current: Option<Digest>) -> bool {
        match self {
            Self::None => true,
            Self::Exists => current.is_some(),
            Self::Absent => current.is_none(),
            Self::IsOneOf(digests) => current.is_some_and(|digest| digests.contains(&digest)),
            Self::IsNoneOf(digests) => !current.is_some_and(|digest| digests.contains(&digest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonnage_engine::vocabulary::Algorithm;

    use super::*;

    /// Guards: RFC 9110 sections 13.1.1 and 13.1.2.
    #[test]
    fn preconditions() {
        let a = Digest::of(Algorithm::Sha256, b"a");
        let b = Digest::of(Algorithm::Sha256, b"b");
        let cases = [
            (Precondition::None, [true, true, true]),
            (Precondition::Exists, [false, true, true]),
            (Precondition::Absent, [true, false, false]),
            (Precondition::IsOneOf(vec![a]), [false, true, false]),
            (Precondition::IsNoneOf(vec![a]), [true, false, true]),
        ];
        for (precondition, expected) in cases {
            let got = [None, Some(a), Some(b)].map(|current| precondition.holds(current));
            assert_eq!(got, expected, "{precondition:?}");
        }
    }
}
