//! Requests to the authority.
//!
//! Owns: [`Http`]. Invariants: every request has a time limit, every answer a size limit, and all of them use TLS. No
//! answer asks to wait longer than a limit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};

use super::super::client::{client_config, https_connector};
use super::super::error::TlsError;
use crate::kept_files::{self, FileError};
use crate::reason::describe;

/// Time for one request, with its connection.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest answer: chains of certificates have a few KiB, an order of 100 names has 10 KiB.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Longest pause that the authority may ask for.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_hours(36);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("its address does not begin with https://")]
    NotEncrypted,
    #[error("it did not answer within {REQUEST_TIME_MAX:?}")]
    Late,
    #[error("{0}")]
    Request(String),
    #[error("its answer cannot be read: {0}")]
    Answer(String),
}

/// A client for one attempt.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    retry_after_s: Arc<AtomicU64>,
}

impl Http {
    /// Creates a client that trusts the system's roots and those in `authorities`. Reads files.
    pub(super) fn new(authorities: Option<&std::path::Path>) -> Result<Self, TlsError> {
        let pem = match authorities {
            Some(path) => Some(kept_files::text(path, kept_files::read(path)?)?),
            None => None,
        };
        let config =
            client_config(pem.as_deref(), true).map_err(|error| match (error, authorities) {
                (TlsError::Authority(why), Some(path)) => FileError::unusable(path, why).into(),
                (error, _) => error,
            })?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
        let client = Client::builder(TokioExecutor::new()).build(https_connector(config, tcp));
        Ok(Self {
            client,
            retry_after_s: Arc::default(),
        })
    }

    /// Returns how long the authority asks to wait, in the last answer that asked for it.
    pub(super) fn retry_after(&self) -> Duration {
        Duration::from_secs(self.retry_after_s.load(Ordering::Relaxed))
    }

    async fn answer(
        self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, HttpError> {
        if request.uri().scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(HttpError::NotEncrypted);
        }
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| HttpError::Request(describe(&error)))?;
        let (mut parts, body) = answer.into_parts();
        let retry_after_s = limit_retry_after(&mut parts.headers);
        let is_busy = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if is_busy.contains(&parts.status) {
            self.retry_after_s
                .store(retry_after_s.unwrap_or_default(), Ordering::Relaxed);
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map_err(|error| HttpError::Answer(error.to_string()))?
            .to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)).into())
    }
}

/// Limits how long an answer asks to wait, because the library adds it to the time. Removes a text that is not a number
/// of seconds: authorities do not use the other form, a date, and without it the own pauses count.
fn limit_retry_after(headers: &mut HeaderMap) -> Option<u64> {
    let text = headers.remove(header::RETRY_AFTER)?;
    let seconds: u64 = text.to_str().ok()?.trim().parse().ok()?;
    let seconds = seconds.min(RETRY_AFTER_MAX.as_secs());
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Some(seconds)
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let answer = tokio::time::timeout(REQUEST_TIME_MAX, self.clone().answer(request));
        Box::pin(async move {
            let answer = answer.await.unwrap_or(Err(HttpError::Late));
            answer.map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: no answer makes a time overflow, and one that asks to wait in another form than seconds is not followed.
    #[test]
    fn times_to_wait_are_limited() {
        let max = RETRY_AFTER_MAX.as_secs();
        for (text, expected) in [
            ("7", Some(7)),
            ("18446744073709551615", Some(max)),
            ("18446744073709551616", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::RETRY_AFTER, HeaderValue::from_static(text));
            headers.append(header::RETRY_AFTER, HeaderValue::from_static("99999999999"));
            assert_eq!(limit_retry_after(&mut headers), expected, "{text}");
            let left: Vec<_> = headers.values().collect();
            let expected = expected.map(HeaderValue::from);
            assert_eq!(left, Vec::from_iter(&expected), "{text}");
        }
    }
}
