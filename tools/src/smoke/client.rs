//! The HTTP client of smoke: requests to one registry, streamed in both directions.
//!
//! Owns: the connection, addresses, generated bodies, and the meter of transferred bytes.
//! Refuses: checking answers, which `steps` does.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tonnage_server::tls::https_connector;

use super::content::{Content, piece_at};
use super::record::Problem;

/// Largest answer in bytes that is read into memory: tags, referrers, errors.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A counter of bytes in both directions, which distinguishes a slow registry from one without progress.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Returns the bytes transferred so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// The body of a request: a range of some content, generated as it is sent.
#[derive(Debug)]
pub(crate) struct Upload {
    content: Content,
    offset: u64,
    end: u64,
    meter: Meter,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.offset == self.end {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; piece_at(self.offset, self.end)];
        self.content.fill(self.offset, &mut piece);
        self.offset += piece.len() as u64;
        self.meter.add(piece.len());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.offset == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.offset)
    }
}

/// One registry.
#[derive(Debug)]
pub(crate) struct Registry {
    client: Client<HttpsConnector<HttpConnector>, Upload>,
    base: String,
    authorization: Option<HeaderValue>,
    meter: Meter,
}

impl Registry {
    /// Creates a client for `base`, `http://host:port` or `https://host:port`. It connects at the first request.
    pub(crate) fn new(base: String, tls: ClientConfig, authorization: Option<HeaderValue>) -> Self {
        let connector = https_connector(tls, HttpConnector::new());
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self {
            client,
            base,
            authorization,
            meter: Meter::default(),
        }
    }

    /// Returns the meter of transferred bytes.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Sends a request without a body.
    pub(crate) async fn send(&self, method: Method, target: &str) -> Result<Answer, Problem> {
        self.send_content(method, target, &[], &Content::Bytes(Bytes::new()), 0..0)
            .await
    }

    /// Sends a request with headers and without a body.
    pub(crate) async fn send_with(
        &self,
        method: Method,
        target: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Answer, Problem> {
        self.send_content(method, target, headers, &Content::Bytes(Bytes::new()), 0..0)
            .await
    }

    /// Sends bytes `range` of `content` to `target`, a path or a whole address.
    pub(crate) async fn send_content(
        &self,
        method: Method,
        target: &str,
        headers: &[(HeaderName, String)],
        content: &Content,
        range: Range<u64>,
    ) -> Result<Answer, Problem> {
        let uri = if target.starts_with('/') {
            format!("{}{target}", self.base)
        } else {
            target.to_owned()
        };
        let what = format!("{method} {uri}");
        let body = Upload {
            content: content.clone(),
            offset: range.start,
            end: range.end,
            meter: self.meter.clone(),
        };
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // Another server, to which a location may lead, gets no credentials.
        if let Some(authorization) = &self.authorization
            && uri.starts_with(&format!("{}/", self.base))
        {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(body)
            .map_err(|error| Problem::unanswered(&what, &error))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| Problem::unanswered(&what, &error))?;
        Ok(Answer {
            what,
            response,
            meter: self.meter.clone(),
        })
    }
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub(crate) struct Answer {
    what: String,
    response: Response<Incoming>,
    meter: Meter,
}

impl Answer {
    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns a header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    }

    /// Returns the answer if its status is one of `expected`, otherwise a problem with the registry's message.
    pub(crate) async fn expect(self, expected: &[StatusCode]) -> Result<Self, Problem> {
        if expected.contains(&self.status()) {
            return Ok(self);
        }
        let codes: Vec<&str> = expected.iter().map(StatusCode::as_str).collect();
        let (what, status) = (self.what.clone(), self.status());
        let words = self.text().await.unwrap_or_default();
        // An answer for humans may be a whole page; the first line is enough.
        let words: String = words
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(300)
            .collect();
        Err(Problem::new(
            format!("{} to {what}", codes.join(" or ")),
            format!("{status} {words}"),
        ))
    }

    /// Returns the location of the next request, with `query` added.
    pub(crate) fn location(&self, query: &str) -> Result<String, Problem> {
        let Some(location) = self.header(LOCATION.as_str()) else {
            return Err(Problem::new(
                format!("a Location header from {}", self.what),
                "none",
            ));
        };
        if location.parse::<Uri>().is_err() {
            return Err(Problem::new("a Location that is an address", location));
        }
        if query.is_empty() {
            return Ok(location.to_owned());
        }
        let joint = if location.contains('?') { '&' } else { '?' };
        Ok(format!("{location}{joint}{query}"))
    }

    /// Reads the whole body, if it is small.
    pub(crate) async fn text(self) -> Result<String, Problem> {
        let what = self.what;
        match Limited::new(self.response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
        {
            Ok(body) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
            Err(error) => Err(Problem::new(
                format!("a whole answer to {what}"),
                error.to_string(),
            )),
        }
    }

    /// Reads the body and compares it with bytes `range` of `content`, without keeping it.
    pub(crate) async fn compare(self, content: &Content, range: Range<u64>) -> Result<(), Problem> {
        let Range { start, end } = range;
        let mut body = self.response.into_body();
        let mut scratch = Vec::new();
        let mut offset = start;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Problem::new(
                    format!("{} bytes from {}", end - start, self.what),
                    error.to_string(),
                )
            })?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            self.meter.add(data.len());
            content
                .compare(offset, data, &mut scratch)
                .map_err(|(expected, found)| Problem::new(expected, found))?;
            offset += data.len() as u64;
        }
        if offset == end {
            return Ok(());
        }
        let expected = format!("{} bytes from {}", end - start, self.what);
        Err(Problem::new(expected, format!("{} bytes", offset - start)))
    }
}
