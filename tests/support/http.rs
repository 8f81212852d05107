//! A small HTTP client: one connection, one request at a time, bodies of any size generated while they are sent.
//!
//! Owns: [`Connection`], [`Answer`], [`Upload`] bodies. `client` opens one for each request. Refuses: retries and
//! pools, which would hide what the server did.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::content::Content;

/// The limit for any single answer. A registry that hangs fails the test instead of blocking it.
const ANSWER_BOUND: Duration = Duration::from_secs(300);
const FRAME: u64 = 1 << 20;

/// One connection to a registry.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
    ended: Ended,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Upload>),
    Two(http2::SendRequest<Upload>),
}

/// How the last request of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With a whole answer.
    Answered(StatusCode),
    /// The connection was closed before or during its answer.
    Broken,
    /// Not within the limit, or it was dropped.
    Unfinished,
}

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, unless it was only compared (see [`Connection::get_compare`]).
    pub body: Bytes,
}

impl Answer {
    /// Returns a header as text. An unreadable header counts as absent.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns this answer if it has the status `wanted`, else an error with its body.
    pub fn wanted(self, wanted: StatusCode, doing: &str) -> Result<Self, String> {
        if self.status == wanted {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(&self.body);
        Err(format!(
            "{doing}: {} instead of {wanted}: {body}",
            self.status
        ))
    }

    /// Returns a header that must occur once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name} in {:?}", self.headers);
        values[0].to_str().expect("text")
    }

    /// Returns whether there is no such header.
    pub fn lacks(&self, name: &str) -> bool {
        !self.headers.contains_key(name)
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Asserts the status, and shows the body if it differs.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let (headers, body) = (&self.headers, &self.body);
        assert_eq!(self.status.as_u16(), status, "{headers:?} {body:?}");
        self
    }

    /// Asserts an error of the specification's form, with this status and code.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/json");
        let document = answer.json();
        let errors = document["errors"].as_array().expect("a list of errors");
        assert!(!errors.is_empty());
        for error in errors {
            assert_eq!(error["code"], code, "{document}");
            assert!(error["message"].is_string());
            assert_eq!(error["detail"]["requestId"], answer.header("x-request-id"));
        }
        answer
    }
}

impl Connection {
    /// Connects with HTTP/1.1.
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        let (sender, connection) = http1::handshake(stream(address).await?)
            .await
            .map_err(|e| format!("handshake: {e}"))?;
        // Ends with the connection; its error reaches the request that waits for it.
        tokio::spawn(connection);
        Ok(Self {
            address,
            sender: Sender::One(sender),
            ended: Ended::Unfinished,
        })
    }

    /// Connects with HTTP/2 and prior knowledge.
    pub async fn connect_h2(address: SocketAddr) -> Result<Self, String> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream(address).await?)
            .await
            .map_err(|e| format!("handshake: {e}"))?;
        tokio::spawn(connection);
        Ok(Self {
            address,
            sender: Sender::Two(sender),
            ended: Ended::Unfinished,
        })
    }

    /// Returns how the last request ended.
    pub fn ended(&self) -> Ended {
        self.ended
    }

    /// Sends one request and reads the whole answer. `target` is a path, or an absolute URL of this server.
    pub async fn send(
        &mut self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: Upload,
    ) -> Result<Answer, String> {
        let (parts, mut incoming) = self.begin(&method, target, headers, body).await?;
        let ended = &mut self.ended;
        let whole = tokio::time::timeout(ANSWER_BOUND, async {
            let mut all = Vec::new();
            while let Some(frame) = incoming.frame().await {
                let frame = frame.map_err(|e| {
                    *ended = Ended::Broken;
                    format!("{method} {target}: reading: {e}")
                })?;
                if let Ok(data) = frame.into_data() {
                    all.extend_from_slice(&data);
                }
            }
            Ok::<_, String>(all)
        });
        let body = whole
            .await
            .map_err(|_| format!("{method} {target}: the answer did not end in time"))??;
        self.ended = Ended::Answered(parts.status);
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.into(),
        })
    }

    /// Sends a GET and compares the body with `content` as it arrives. Returns `Ok(false)` for a 404.
    pub async fn get_compare(&mut self, target: &str, content: Content) -> Result<bool, String> {
        let (parts, mut incoming) = self
            .begin(&Method::GET, target, &[], Upload::empty())
            .await?;
        let (mut at, mut wanted) = (0_u64, Vec::new());
        let mut refused = Vec::new();
        loop {
            let frame = tokio::time::timeout(ANSWER_BOUND, incoming.frame());
            let frame = frame
                .await
                .map_err(|_| format!("GET {target}: nothing after {at} in {ANSWER_BOUND:?}"))?;
            let Some(frame) = frame else {
                break;
            };
            let frame = frame.map_err(|e| {
                self.ended = Ended::Broken;
                format!("GET {target}: at {at}: {e}")
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if parts.status != StatusCode::OK {
                refused.extend_from_slice(&data);
                continue;
            }
            wanted.resize(data.len(), 0);
            let there = content.read_at(at, &mut wanted);
            if wanted[..there] != data[..] {
                return Err(format!(
                    "GET {target}: bytes differ within {at}+{}",
                    data.len()
                ));
            }
            at += data.len() as u64;
        }
        self.ended = Ended::Answered(parts.status);
        match parts.status {
            StatusCode::OK if at == content.length => Ok(true),
            StatusCode::OK => Err(format!("GET {target}: {at} bytes of {}", content.length)),
            StatusCode::NOT_FOUND => Ok(false),
            other => Err(format!(
                "GET {target}: {other}: {}",
                String::from_utf8_lossy(&refused)
            )),
        }
    }

    async fn begin(
        &mut self,
        method: &Method,
        target: &str,
        headers: &[(&str, &str)],
        body: Upload,
    ) -> Result<(hyper::http::response::Parts, hyper::body::Incoming), String> {
        let path = path_of(target, self.address)?;
        let mut request = Request::builder().method(method);
        let (host, headers): (Vec<_>, Vec<_>) = headers.iter().partition(|(name, _)| HOST == *name);
        let host = host.first().map(|(_, host)| (*host).to_owned());
        let host = host.unwrap_or_else(|| self.address.to_string());
        request = match &self.sender {
            Sender::One(_) => request.uri(path).header(HOST, host),
            Sender::Two(_) => request.uri(format!("http://{host}{path}")),
        };
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let bodiless = [Method::GET, Method::HEAD].contains(method) && body.left() == 0;
        let counted = headers.iter().any(|(name, _)| CONTENT_LENGTH == *name);
        if body.counted && !bodiless && !counted {
            request = request.header(CONTENT_LENGTH, body.left());
        }
        self.ended = Ended::Unfinished;
        let request = request
            .body(body)
            .map_err(|e| format!("{method} {target}: {e}"))?;
        let answer = tokio::time::timeout(ANSWER_BOUND, async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Two(sender) => sender.send_request(request).await,
            }
        });
        let answer = answer
            .await
            .map_err(|_| format!("{method} {target}: no answer in {ANSWER_BOUND:?}"))?
            .map_err(|e| {
                self.ended = Ended::Broken;
                format!("{method} {target}: {e}")
            })?;
        Ok(answer.into_parts())
    }
}

async fn stream(address: SocketAddr) -> Result<TokioIo<TcpStream>, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| format!("connect to {address}: {e}"))?;
    stream
        .set_nodelay(true)
        .map_err(|e| format!("set TCP_NODELAY: {e}"))?;
    Ok(TokioIo::new(stream))
}

/// Returns path and query of a Location, which may be relative or absolute.
fn path_of(target: &str, address: SocketAddr) -> Result<&str, String> {
    if target.starts_with('/') {
        return Ok(target);
    }
    target
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_prefix(address.to_string().as_str()))
        .ok_or_else(|| format!("{target} does not lead to {address}"))
}

/// The time at which the last piece of a body was passed to the connection.
pub type LastByte = Arc<Mutex<Option<Instant>>>;

/// The body of a request: bytes in memory, or a part of [`Content`] generated while it is sent.
#[derive(Debug)]
pub struct Upload {
    source: Source,
    counted: bool,
    last: Option<LastByte>,
}

#[derive(Debug)]
enum Source {
    Pieces(VecDeque<Bytes>),
    Content { content: Content, at: u64, end: u64 },
}

impl Upload {
    /// Creates an empty body.
    pub fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    /// Creates a body of these bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self {
            source: Source::Pieces(VecDeque::from([bytes.into()])),
            counted: true,
            last: None,
        }
    }

    /// Creates a body of these pieces, one frame each, without a length.
    pub fn pieces(pieces: Vec<Bytes>) -> Self {
        Self {
            source: Source::Pieces(pieces.into()),
            counted: false,
            last: None,
        }
    }

    /// Creates a body of the bytes of `content` from `at` up to `end`.
    pub fn part(content: Content, at: u64, end: u64) -> Self {
        Self {
            source: Source::Content { content, at, end },
            counted: true,
            last: None,
        }
    }

    /// Sends the body with `Transfer-Encoding: chunked`, without a length.
    #[must_use]
    pub fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Records in `last` when the last piece was passed on.
    #[must_use]
    pub fn noting(mut self, last: &LastByte) -> Self {
        self.last = Some(Arc::clone(last));
        self
    }

    fn left(&self) -> u64 {
        match &self.source {
            Source::Pieces(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Source::Content { at, end, .. } => end - at,
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.left() == 0 {
            return None;
        }
        let piece = match &mut self.source {
            Source::Pieces(pieces) => pieces.pop_front()?,
            Source::Content { content, at, end } => {
                let size = usize::try_from((*end - *at).min(FRAME)).expect("a frame is small");
                let mut piece = vec![0; size];
                content.read_at(*at, &mut piece);
                *at += size as u64;
                piece.into()
            }
        };
        if self.left() == 0
            && let Some(last) = &self.last
        {
            *last.lock().expect("the lock is not poisoned") = Some(Instant::now());
        }
        Some(piece)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.counted {
            SizeHint::with_exact(self.left())
        } else {
            SizeHint::default()
        }
    }
}
