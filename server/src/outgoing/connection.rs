//! Requests to other servers.
//!
//! Owns: [`Connections`]: one GET at a time, its time limits, redirects, and where credentials go. Refuses: what an
//! answer means.
//!
//! Invariant: `Authorization` is sent to the origin for which it was made, and to no other, also after a redirect back.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::PeerLimits;
use super::redirect::{self, REDIRECTS_MAX};
use crate::clock::RunningClock;
use crate::reason::describe;
use crate::registry::peer::PeerError;
use crate::tls::https_connector;

/// Connections that are kept for the next request.
const IDLE_MAX: usize = 2;
const AGENT: &str = concat!("tonnage/", env!("CARGO_PKG_VERSION"));

/// Connections to other servers.
#[derive(Debug)]
pub(super) struct Connections {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    clock: RunningClock,
    limits: PeerLimits,
}

/// What is sent with a request.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) accept: HeaderValue,
    pub(super) authorization: Option<HeaderValue>,
}

impl Connections {
    pub(super) fn new(tls: rustls::ClientConfig, limits: PeerLimits, clock: RunningClock) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limits.connect));
        let connector = https_connector(tls, tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.connect)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Self {
            client,
            clock,
            limits,
        }
    }

    /// Sends one request. Returns the head of the answer, which must arrive in time.
    pub(super) async fn get(
        &self,
        url: &Uri,
        fields: Fields,
    ) -> Result<Response<Incoming>, PeerError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, fields.accept);
        if let Some(authorization) = fields.authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        let answer = self.client.request(request);
        match self.clock.timeout(self.limits.head, answer).await {
            Ok(answer) => answer.map_err(|error| PeerError::Unreachable(describe(&error))),
            Err(_elapsed) => {
                let seconds = self.limits.head.as_secs_f32();
                let what = format!("no answer in {seconds} s");
                Err(PeerError::Unreachable(what))
            }
        }
    }

    /// Sends a request and follows redirects. Returns the answer, and whether it is from the origin of `url`.
    pub(super) async fn get_redirected(
        &self,
        url: &Uri,
        mut fields: Fields,
    ) -> Result<(Response<Incoming>, bool), PeerError> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let is_origin = redirect::is_same_origin(url, &at);
            if !is_origin {
                fields.authorization = None;
            }
            let answer = self.get(&at, fields.clone()).await?;
            if !is_redirect(answer.status()) {
                return Ok((answer, is_origin));
            }
            let location = answer.headers().get(LOCATION);
            let Some(location) = location.and_then(|value| value.to_str().ok()) else {
                return Err(PeerError::Redirect("nowhere".to_owned()));
            };
            at = redirect::target(&at, location).map_err(PeerError::Redirect)?;
        }
        let what = format!("another place more than {REDIRECTS_MAX} times");
        Err(PeerError::Redirect(what))
    }

    /// Returns the bytes of a body, which must arrive at the least rate.
    pub(super) fn content(&self, body: Incoming) -> super::Content {
        super::body::paced(body, self.clock.clone(), self.limits)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
