//! The body of an answer that reports an error, in the form of the distribution specification ("Error Codes").
//!
//! Owns: [`response`] and its entries, and the answer to a head that the transport rejects.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::body::Body;
use crate::oci::Code;
use crate::transport::head_check::HeadError;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Builds the entry of one error.
#[expect(
    clippy::needless_pass_by_value,
    reason = "made for the call; it moves into the entry"
)]
pub(crate) fn entry(code: Code, message: &str, detail: Value) -> Value {
    json!({ "code": code.as_str(), "message": message, "detail": detail })
}

/// Builds an answer with these errors.
pub(crate) fn response(status: StatusCode, errors: &[Value]) -> Response<Body> {
    let text = json!({ "errors": errors }).to_string();
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Builds the answer to a request whose head is rejected.
pub(crate) fn of_head(refused: &HeadError, request_id: &str) -> Response<Body> {
    let status = refused.status();
    let code = if status == StatusCode::FORBIDDEN {
        Code::Denied
    } else {
        Code::Unsupported
    };
    let detail = json!({ "requestId": request_id });
    let mut response = response(status, &[entry(code, &refused.to_string(), detail)]);
    if refused.closes_connection() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}
