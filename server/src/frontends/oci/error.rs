//! Maps errors to answers.
//!
//! Owns: the only map from [`Error`] to status and code, and the `detail` of an error.
//! Refuses: internal text in a body. A 5xx has the request id and says what to do; its cause is logged here.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::access::{Challenge, Refused};
use crate::frontends::body::Body;
use crate::frontends::error_body::{self, entry};
use crate::oci::Code;
use crate::registry::Error;

/// Longest body in bytes that lists missing children one by one; clients read at most 64 KiB of an error.
const MISSING_NAMED_BYTES: usize = 48 << 10;
/// Seconds after which a client may retry, where waiting helps.
const RETRY_AFTER_SECONDS: &str = "30";

/// A request that is answered with an error.
#[derive(Debug)]
pub(super) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: FailureKind,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
enum FailureKind {
    UseCase(Error),
    Protocol {
        status: StatusCode,
        code: Code,
        message: String,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(FailureKind::UseCase(error))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let (status, code) = match &refused {
            Refused::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, Code::Unauthorized),
            Refused::Denied => (StatusCode::FORBIDDEN, Code::Denied),
            Refused::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Code::Unknown),
        };
        let failure = Self::other(status, code, refused.to_string());
        match refused {
            Refused::Unauthenticated(Challenge(challenge)) => {
                failure.with(header::WWW_AUTHENTICATE, challenge)
            }
            Refused::Denied | Refused::Unavailable => failure,
        }
    }
}

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        Error::internal(error).into()
    }
}

impl From<header::InvalidHeaderValue> for Failure {
    fn from(error: header::InvalidHeaderValue) -> Self {
        Error::internal(error).into()
    }
}

impl Failure {
    fn new(kind: FailureKind) -> Self {
        Self(Box::new(Inner {
            kind,
            headers: Vec::new(),
        }))
    }

    /// Builds a failure from an error of the protocol, before any use case.
    pub(super) fn other(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Protocol {
            status,
            code,
            message: message.into(),
        })
    }

    pub(super) fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("method not allowed; this path accepts {allowed}");
        Self::other(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
            .with(header::ALLOW, HeaderValue::from_static(allowed))
    }

    /// Adds a header to the answer.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Builds the answer. Logs the cause of a server error.
    pub(super) fn into_response(self, request_id: &str) -> Response<Body> {
        let Inner { kind, headers } = *self.0;
        let (status, errors) = match kind {
            FailureKind::UseCase(error) => {
                let (status, code) = answer_to(&error);
                log(&error, status);
                let errors = details(&error, code, &error.to_string(), request_id);
                (status, errors)
            }
            FailureKind::Protocol {
                status,
                code,
                message,
            } => {
                let detail = json!({ "requestId": request_id });
                (status, vec![entry(code, &message, detail)])
            }
        };
        let mut response = error_body::response(status, &errors);
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            response.headers_mut().insert(
                header::RETRY_AFTER,
                HeaderValue::from_static(RETRY_AFTER_SECONDS),
            );
        }
        response.headers_mut().extend(headers);
        response
    }
}

/// Returns the status and code of an error.
fn answer_to(error: &Error) -> (StatusCode, Code) {
    match error {
        Error::NameUnknown(_) | Error::NamespaceUnknown => {
            (StatusCode::NOT_FOUND, Code::NameUnknown)
        }
        Error::ManifestUnknown { .. } => (StatusCode::NOT_FOUND, Code::ManifestUnknown),
        Error::BlobUnknown { .. } => (StatusCode::NOT_FOUND, Code::BlobUnknown),
        Error::UploadUnknown => (StatusCode::NOT_FOUND, Code::BlobUploadUnknown),
        Error::TagProtected(_) => (StatusCode::FORBIDDEN, Code::Denied),
        Error::NameInvalid(_) => (StatusCode::BAD_REQUEST, Code::NameInvalid),
        Error::DigestInvalid(_) | Error::DigestMissing | Error::DigestMismatch { .. } => {
            (StatusCode::BAD_REQUEST, Code::DigestInvalid)
        }
        Error::PageInvalid(_) | Error::BodyFraming => (StatusCode::BAD_REQUEST, Code::Unsupported),
        Error::OutOfOrder { .. } | Error::UploadBusy => {
            (StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid)
        }
        Error::ChunkRangeInvalid(_) | Error::BodyBroken => {
            (StatusCode::BAD_REQUEST, Code::BlobUploadInvalid)
        }
        Error::ManifestBroken => (StatusCode::BAD_REQUEST, Code::ManifestInvalid),
        Error::BodyTimeout | Error::UploadTimeout => {
            (StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid)
        }
        Error::ChunkLength { .. } | Error::RangesExcessive => {
            (StatusCode::BAD_REQUEST, Code::SizeInvalid)
        }
        Error::ContentEncoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unsupported),
        Error::ManifestInvalid(_) | Error::ManifestTypeStored { .. } | Error::TagInvalid(_) => {
            (StatusCode::BAD_REQUEST, Code::ManifestInvalid)
        }
        Error::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid),
        Error::ManifestBlobUnknown(_) => (StatusCode::BAD_REQUEST, Code::ManifestBlobUnknown),
        Error::TooManyTags { .. } => (StatusCode::URI_TOO_LONG, Code::ManifestInvalid),
        Error::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, Code::ManifestInvalid),
        Error::RangeUnsatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid),
        Error::TooManyUploads { .. }
        | Error::TooManyRequests
        | Error::TooManyManifests
        | Error::TooManyLists => (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests),
        // The answer to a full disk is not 503: see ARCHITECTURE.md, "Full and nearly full disks".
        Error::Full(_) | Error::NoRoom { .. } | Error::NearlyFull { .. } => {
            (StatusCode::INSUFFICIENT_STORAGE, Code::Unknown)
        }
        Error::NotAttempted { .. } | Error::ReadOnly(_) | Error::Closing => {
            (StatusCode::SERVICE_UNAVAILABLE, Code::Unknown)
        }
        Error::Damaged(_) | Error::Internal(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown)
        }
    }
}

fn log(error: &Error, status: StatusCode) {
    if !status.is_server_error() {
        tracing::debug!(%error, "refused");
        return;
    }
    let cause = std::error::Error::source(error).map(tracing::field::display);
    // Clients cause these, for example by announcing more than fits, or every push repeats them.
    if matches!(
        error,
        Error::Closing | Error::NoRoom { .. } | Error::NearlyFull { .. }
    ) {
        tracing::info!(%error, "refused");
    } else {
        tracing::error!(%error, cause, "failed");
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most errors have nothing to add"
)]
fn details(error: &Error, code: Code, message: &str, request_id: &str) -> Vec<Value> {
    let one = |detail: Value| vec![entry(code, message, detail)];
    match error {
        Error::ManifestBlobUnknown(missing) => {
            let mut bytes = 0;
            let named = missing.iter().enumerate().map(|(number, missing)| {
                let digest = missing.digest.to_string();
                let detail = json!({ "digest": digest, "requestId": request_id });
                // Many clients show only the first message, so it names everything.
                if number == 0 {
                    entry(code, message, detail)
                } else {
                    entry(code, &missing.to_string(), detail)
                }
            });
            let fits = |entry: &Value| {
                bytes += entry.to_string().len() + 1;
                bytes <= MISSING_NAMED_BYTES
            };
            named.take_while(fits).collect()
        }
        Error::DigestMismatch { expected, found } => one(json!({
            "expected": expected.to_string(), "found": found.to_string(), "requestId": request_id,
        })),
        Error::OutOfOrder { first, offset } => {
            one(json!({ "first": first, "offset": offset, "requestId": request_id }))
        }
        _ => one(json!({ "requestId": request_id })),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;

    /// Guards: the answer to a server error has the request id and nothing of its cause.
    #[tokio::test]
    async fn internal_text_stays_inside() {
        let secret = "/srv/data/seg-7: EIO";
        for error in [
            Error::Internal(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(
                secret,
            ))),
            Error::Full(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(
                secret,
            ))),
        ] {
            let response = Failure::from(error).into_response("id-7");
            assert!(response.status().is_server_error());
            // spec: Retry-After where waiting may help.
            let unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(response.headers().contains_key("retry-after"), unavailable);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(!text.contains("srv") && text.contains("id-7"), "{text}");
        }
    }
}
