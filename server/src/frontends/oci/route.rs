//! Parses paths into routes.
//!
//! Owns: [`Route`], [`Resource`] and the only parser of paths. The parser matches from the right, because a
//! repository's name may contain `blobs`, `manifests`, `tags` or `uploads` as components:
//! `/v2/a/blobs/uploads/manifests/latest` is the manifest `latest` of `a/blobs/uploads`.
//! Refuses: every escape but that of a colon, before any other check of the path.

use std::borrow::Cow;

use http::{Method, StatusCode};
use tonnage_engine::vocabulary::UploadId;

use super::error::Failure;
use crate::access::TOKEN_PATH;
use crate::oci::{
    Code, Digest, InvalidName, InvalidReference, ParseDigestError, Reference, RepositoryName,
};
use crate::registry::Error;

/// The resource that a path names, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Token,
    Catalog,
    Tags {
        name: RepositoryName,
    },
    Manifest {
        name: RepositoryName,
        reference: Reference,
    },
    Blob {
        name: RepositoryName,
        digest: Digest,
    },
    Uploads {
        name: RepositoryName,
    },
    Upload {
        name: RepositoryName,
        id: UploadId,
    },
    Referrers {
        name: RepositoryName,
        subject: Digest,
    },
}

/// The kind of resource that a route names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Base,
    Token,
    Catalog,
    Tags,
    Manifest,
    Blob,
    Uploads,
    Upload,
    Referrers,
}

/// Why a path is not a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouteError {
    NoSuchPath,
    EmptySegment,
    FinalSlash,
    Escape,
    Name(InvalidName),
    Reference {
        name: RepositoryName,
        text: String,
        why: InvalidReference,
    },
    Digest(ParseDigestError),
    UploadId,
}

impl Resource {
    /// Returns the methods that it accepts, in the form of `Allow`. A handler relies on getting no other one.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Base | Self::Catalog | Self::Tags | Self::Referrers => "GET, HEAD",
            Self::Manifest => "GET, HEAD, PUT, DELETE",
            Self::Blob => "GET, HEAD, DELETE",
            Self::Uploads => "POST",
            Self::Token => "GET, POST",
            Self::Upload => "GET, HEAD, PATCH, PUT, DELETE",
        }
    }

    pub(super) fn allows(self, method: &Method) -> bool {
        self.methods()
            .split(", ")
            .any(|allowed| allowed == method.as_str())
    }

    /// All of them.
    #[cfg(feature = "fuzz-entry")]
    pub(super) const ALL: [Self; 9] = [
        Self::Base,
        Self::Token,
        Self::Catalog,
        Self::Tags,
        Self::Manifest,
        Self::Blob,
        Self::Uploads,
        Self::Upload,
        Self::Referrers,
    ];

    pub(super) fn template(self) -> &'static str {
        match self {
            Self::Base => "/v2/",
            Self::Token => TOKEN_PATH,
            Self::Catalog => "/v2/_catalog",
            Self::Tags => "/v2/{name}/tags/list",
            Self::Manifest => "/v2/{name}/manifests/{reference}",
            Self::Blob => "/v2/{name}/blobs/{digest}",
            Self::Uploads => "/v2/{name}/blobs/uploads/",
            Self::Upload => "/v2/{name}/blobs/uploads/{id}",
            Self::Referrers => "/v2/{name}/referrers/{digest}",
        }
    }
}

impl Route {
    pub(super) fn resource(&self) -> Resource {
        match self {
            Self::Base => Resource::Base,
            Self::Token => Resource::Token,
            Self::Catalog => Resource::Catalog,
            Self::Tags { .. } => Resource::Tags,
            Self::Manifest { .. } => Resource::Manifest,
            Self::Blob { .. } => Resource::Blob,
            Self::Uploads { .. } => Resource::Uploads,
            Self::Upload { .. } => Resource::Upload,
            Self::Referrers { .. } => Resource::Referrers,
        }
    }

    /// Returns the label for metrics and logs.
    pub(super) fn template(&self) -> &'static str {
        self.resource().template()
    }
}

impl RouteError {
    /// Maps the error to an answer. Reading something that cannot exist is 404, writing it 400.
    pub(super) fn into_failure(self, method: &Method) -> Failure {
        match self {
            Self::NoSuchPath => no_such_path("paths of the registry begin with /v2/"),
            Self::EmptySegment => {
                no_such_path("it has an empty segment; remove the second of two slashes")
            }
            Self::FinalSlash => no_such_path("it ends in a slash; remove it"),
            Self::Escape => no_such_path(
                "%3A is the only escape that is accepted; send the slashes of a name as / and not as %2F",
            ),
            Self::Name(why) => Error::NameInvalid(why).into(),
            Self::Digest(why)
            | Self::Reference {
                why: InvalidReference::Digest(why),
                ..
            } => Error::DigestInvalid(why).into(),
            Self::Reference {
                why: InvalidReference::Tag(why),
                ..
            } if *method == Method::PUT => Error::TagInvalid(why).into(),
            Self::Reference { name, text, .. } => {
                let reference = text.chars().take(128).collect();
                Error::ManifestUnknown {
                    repository: name,
                    reference,
                }
                .into()
            }
            Self::UploadId => Error::UploadUnknown.into(),
        }
    }
}

fn no_such_path(why: &str) -> Failure {
    let message = format!("no such path; {why}");
    Failure::other(StatusCode::NOT_FOUND, Code::Unsupported, message)
}

/// Parses a path without its query.
pub(super) fn parse(path: &str) -> Result<Route, RouteError> {
    let path = unescape(path)?;
    match named(&path) {
        Err(RouteError::NoSuchPath) if path.contains("//") => Err(RouteError::EmptySegment),
        Err(RouteError::NoSuchPath) if path.starts_with("/v2/") && path.ends_with('/') => {
            Err(RouteError::FinalSlash)
        }
        route => route,
    }
}

fn named(path: &str) -> Result<Route, RouteError> {
    if path == TOKEN_PATH {
        return Ok(Route::Token);
    }
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Route::Base),
        Some(rest) => rest.strip_prefix('/').ok_or(RouteError::NoSuchPath)?,
        None => return Err(RouteError::NoSuchPath),
    };
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    let name = |text: &str| text.parse::<RepositoryName>().map_err(RouteError::Name);
    let (head, last) = rest.rsplit_once('/').ok_or(RouteError::NoSuchPath)?;
    if last.is_empty() {
        let text = head
            .strip_suffix("/blobs/uploads")
            .ok_or(RouteError::NoSuchPath)?;
        return Ok(Route::Uploads { name: name(text)? });
    }
    if let Some(text) = head.strip_suffix("/manifests") {
        let name = name(text)?;
        return match last.parse() {
            Ok(reference) => Ok(Route::Manifest { name, reference }),
            Err(why) => Err(RouteError::Reference {
                name,
                text: last.to_owned(),
                why,
            }),
        };
    }
    if let Some(text) = head.strip_suffix("/referrers") {
        let name = name(text)?;
        return Ok(Route::Referrers {
            name,
            subject: last.parse().map_err(RouteError::Digest)?,
        });
    }
    if let Some(text) = head.strip_suffix("/blobs/uploads") {
        let name = name(text)?;
        return Ok(Route::Upload {
            name,
            id: last.parse().map_err(|_unparsable| RouteError::UploadId)?,
        });
    }
    if let Some(text) = head.strip_suffix("/blobs") {
        let name = name(text)?;
        if last == "uploads" {
            return Ok(Route::Uploads { name });
        }
        return Ok(Route::Blob {
            name,
            digest: last.parse().map_err(RouteError::Digest)?,
        });
    }
    if let (Some(text), "list") = (head.strip_suffix("/tags"), last) {
        return Ok(Route::Tags { name: name(text)? });
    }
    Err(RouteError::NoSuchPath)
}

/// Decodes `%3A`. No other character of a valid path needs an escape, and `%2f` and `%2e` are ambiguous.
fn unescape(path: &str) -> Result<Cow<'_, str>, RouteError> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let plain = path.replace("%3A", ":").replace("%3a", ":");
    if plain.contains('%') {
        Err(RouteError::Escape)
    } else {
        Ok(Cow::Owned(plain))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Algorithm;

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"")
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    /// Guards: distribution-spec, "Endpoints", with names that contain components of these paths.
    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn paths_are_matched_from_the_right() {
        let id = UploadId::from_random([7; 16]);
        let digest = digest();
        let tag = |name: &str, tag: &str| Route::Manifest {
            name: self::name(name),
            reference: tag.parse().unwrap(),
        };
        let cases = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            (
                "/v2/a/b/tags/list".to_owned(),
                Route::Tags { name: name("a/b") },
            ),
            (
                "/v2/tags/tags/list".to_owned(),
                Route::Tags { name: name("tags") },
            ),
            (
                "/v2/a/manifests/tags/list".to_owned(),
                Route::Tags {
                    name: name("a/manifests"),
                },
            ),
            ("/v2/a/manifests/latest".to_owned(), tag("a", "latest")),
            (
                "/v2/a/tags/manifests/list".to_owned(),
                tag("a/tags", "list"),
            ),
            (
                "/v2/a/blobs/uploads/manifests/uploads".to_owned(),
                tag("a/blobs/uploads", "uploads"),
            ),
            (
                format!("/v2/a/manifests/{digest}"),
                tag("a", &digest.to_string()),
            ),
            (
                format!("/v2/a/blobs/{digest}"),
                Route::Blob {
                    name: name("a"),
                    digest,
                },
            ),
            (
                format!("/v2/a/blobs/{}", digest.to_string().replace(':', "%3A")),
                Route::Blob {
                    name: name("a"),
                    digest,
                },
            ),
            (
                format!("/v2/manifests/blobs/blobs/{digest}"),
                Route::Blob {
                    name: name("manifests/blobs"),
                    digest,
                },
            ),
            (
                "/v2/a/blobs/uploads/".to_owned(),
                Route::Uploads { name: name("a") },
            ),
            (
                "/v2/a/blobs/uploads".to_owned(),
                Route::Uploads { name: name("a") },
            ),
            (
                "/v2/uploads/blobs/uploads/".to_owned(),
                Route::Uploads {
                    name: name("uploads"),
                },
            ),
            (
                format!("/v2/a/blobs/uploads/{id}"),
                Route::Upload {
                    name: name("a"),
                    id,
                },
            ),
            (
                format!("/v2/a/referrers/{digest}"),
                Route::Referrers {
                    name: name("a"),
                    subject: digest,
                },
            ),
        ];
        for (path, route) in cases {
            assert_eq!(parse(&path), Ok(route), "{path}");
        }
    }

    /// Guards: which paths are rejected, and which part of them is reported.
    #[test]
    fn other_paths_are_refused() {
        for path in [
            "",
            "/",
            "/v1",
            "*",
            "/v2x",
            "/V2/",
            "/v1/",
            "/v2/a",
            "/v2/a/tags",
            "/v2/manifests/a",
            "/v2/a/_ext/x/y",
            "/v2/a/manifests/x/y",
        ] {
            assert_eq!(parse(path), Err(RouteError::NoSuchPath), "{path}");
        }
        for path in ["//v2/", "/v2//", "//", "/v2//_catalog", "/v2/a/tags//list"] {
            assert_eq!(parse(path), Err(RouteError::EmptySegment), "{path}");
        }
        for path in [
            "/v2/a/",
            "/v2/a/tags/list/",
            "/v2/a/manifests/",
            "/v2/a/blobs/",
            "/v2/_catalog/",
        ] {
            assert_eq!(parse(path), Err(RouteError::FinalSlash), "{path}");
        }
        for path in ["/v2/a%2Fb/tags/list", "/v2/a/tags/%6cist", "%"] {
            assert_eq!(parse(path), Err(RouteError::Escape), "{path}");
        }
        for path in [
            "/v2/A/tags/list",
            "/v2/a//b/tags/list",
            "/v2//tags/list",
            "/v2/../manifests/a",
            "/v2/a/blobs/x/blobs/uploads/../tags/list",
            "/v2/_x/blobs/uploads/",
        ] {
            assert!(matches!(parse(path), Err(RouteError::Name(_))), "{path}");
        }
        assert_eq!(parse("/v2/a/blobs/uploads/7"), Err(RouteError::UploadId));
        assert!(matches!(
            parse("/v2/a/blobs/sha256:x"),
            Err(RouteError::Digest(_))
        ));
        assert!(matches!(
            parse("/v2/a/referrers/x"),
            Err(RouteError::Digest(_))
        ));
        assert!(matches!(
            parse("/v2/a/manifests/.x"),
            Err(RouteError::Reference { .. })
        ));
    }

    proptest! {
        /// Guards: no path makes the parser panic.
        #[test]
        fn any_path_is_parsed(path in "(/v2)?(/(a|blobs|uploads|manifests|tags|list|%3a|%|\\PC{0,3})){0,6}/?") {
            drop(parse(&path));
        }
    }
}
