//! Requests to the authority.
//!
//! Owns: [`Http`]. Invariants: every request has a time limit, every answer a size limit, and all of them use TLS.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};

use super::super::client::{client_config, https_connector};
use super::super::error::TlsError;
use crate::kept_files::{self, FileError};

/// Time for one request, with its connection.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest answer: chains of certificates have a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

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
        let answer = self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error);
            HttpError::Request(
                cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
            )
        })?;
        let (parts, body) = answer.into_parts();
        let is_busy = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if is_busy.contains(&parts.status) {
            let text = parts
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|text| text.to_str().ok());
            // The other form, a date, is not used by authorities; without it the own pauses count.
            let seconds = text.and_then(|text| text.trim().parse().ok());
            self.retry_after_s
                .store(seconds.unwrap_or_default(), Ordering::Relaxed);
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map_err(|error| HttpError::Answer(error.to_string()))?
            .to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)).into())
    }
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
