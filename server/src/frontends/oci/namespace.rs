//! `ns=` on pulls: the registry whose content the client means (distribution-spec, "Registry Proxying").
//!
//! Owns: [`Scope`]. Clients of a mirror request `library/alpine` of `docker.io` and of `quay.io` by the same path, and
//! accept either content. Without `mirror_of`, `ns` is ignored, as the specification allows, and `OCI-Namespace` is not
//! sent, because it states that the parameter was used. With `mirror_of`, content of other registries is answered 404,
//! and clients try the next host.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};

use super::route::Route;
use crate::registry::Error;
use crate::transport::query;

pub(super) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// The meaning of `ns` for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// There is none, or it is ignored.
    Unscoped,
    /// It names one of the registries that this one mirrors; the header's value.
    Mirrored(HeaderValue),
    /// It names another one.
    Foreign,
}

impl Scope {
    /// Returns the scope of a request. `mirror_of` are the registries that are mirrored here.
    pub(super) fn of(head: &Parts, route: &Route, mirror_of: &[String]) -> Self {
        let is_pull = matches!(head.method, Method::GET | Method::HEAD)
            && matches!(route, Route::Manifest { .. } | Route::Blob { .. });
        if !is_pull {
            return Self::Unscoped;
        }
        Self::of_pull(head, mirror_of)
    }

    /// Returns the scope of a pull of a manifest or blob.
    pub(super) fn of_pull(head: &Parts, mirror_of: &[String]) -> Self {
        if mirror_of.is_empty() {
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

    /// Rejects content of registries that are not mirrored here.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Unscoped | Self::Mirrored(_) => Ok(()),
            Self::Foreign => Err(Error::NamespaceUnknown),
        }
    }
}
