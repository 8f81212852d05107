//! The log of a request.
//!
//! Owns: the span that all its lines have, and its last line.

use std::time::Duration;

use http::{Method, StatusCode};
use tracing::{Level, Span};

use crate::transport::request_id::RequestId;

/// Returns the span of a request to `route`, the template of its path.
pub(super) fn span(id: &RequestId, method: &Method, route: &'static str) -> Span {
    // Strings, which a subscriber copies without formatting.
    let (id, method) = (id.as_str(), method.as_str());
    tracing::info_span!("request", id, method, route)
}

/// Returns whether [`answered`] logs anything.
pub(super) fn is_on() -> bool {
    tracing::enabled!(Level::DEBUG)
}

/// Logs that the head of the answer is ready.
pub(super) fn answered(span: &Span, status: StatusCode, elapsed: Duration) {
    // Enters no span if it is not logged.
    tracing::debug!(parent: span, status = status.as_u16(), ?elapsed, "answered");
}
