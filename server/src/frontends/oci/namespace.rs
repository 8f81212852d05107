//! `ns=` on pulls: of which registry's content the client speaks (distribution-spec, "Registry Proxying").
//!
//! Owns: [`Scope`]. Clients that are told to use this registry as a mirror ask it for `library/alpine` of `docker.io` and of `quay.io` by
//! the same path, and take what they get.
//! Refuses: guessing. Where the operator does not say whose mirror this is, `ns` is ignored, as the spec allows, and `OCI-Namespace` is not
//! sent: it would claim that the parameter was used. Where he does, content of other registries is 404, on which clients go on to the next host.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};

use super::route::Route;
use crate::registry::Error;
use crate::transport::query;

pub(super) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// What `ns` makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// There is none, or it does not matter here.
    Unscoped,
    /// It names one of the registries that this one mirrors; the header's value.
    Mirrored(HeaderValue),
    /// It names another one.
    Foreign,
}

impl Scope {
    /// Of a pull of a manifest or blob, given whose mirror this is.
    pub(super) fn of(head: &Parts, route: &Route, mirror_of: &[String]) -> Self {
        let pull = matches!(head.method, Method::GET | Method::HEAD)
            && matches!(route, Route::Manifest { .. } | Route::Blob { .. });
        if mirror_of.is_empty() || !pull {
            return Self::Unscoped;
        }
        let Some(asked) = query::first(head, "ns") else {
            return Self::Unscoped;
        };
        let known = mirror_of
            .iter()
            .any(|host| host.eq_ignore_ascii_case(&asked));
        match HeaderValue::from_str(&asked) {
            Ok(value) if known => Self::Mirrored(value),
            Ok(_) | Err(_) => Self::Foreign,
        }
    }

    /// Refuses what belongs to others.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Unscoped | Self::Mirrored(_) => Ok(()),
            Self::Foreign => Err(Error::NamespaceUnknown),
        }
    }
}
