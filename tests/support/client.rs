//! A small HTTP client: one connection a request, so that nothing a test did before can matter.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

/// A request's body.
pub type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// A client of one address.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    address: SocketAddr,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// A request in the making.
#[derive(Debug)]
pub struct Call {
    client: Client,
    builder: http::request::Builder,
    body: RequestBody,
}

/// A body with a length.
pub fn whole(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body without: `Transfer-Encoding: chunked`.
pub fn chunked(pieces: Vec<Bytes>) -> RequestBody {
    let frames = pieces
        .into_iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

impl Client {
    /// A client of `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where it connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a request.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let uri = Uri::try_from(path).expect("a path");
        let builder = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, self.address.to_string());
        Call {
            client: *self,
            builder,
            body: whole(""),
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).send().await
    }

    /// HEAD.
    pub async fn head(&self, path: &str) -> Answer {
        self.call(Method::HEAD, path).send().await
    }

    /// POST without a body.
    pub async fn post(&self, path: &str) -> Answer {
        self.call(Method::POST, path).send().await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Method::PUT, path).body(whole(body)).send().await
    }

    /// PATCH.
    pub async fn patch(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Method::PATCH, path)
            .body(whole(body))
            .send()
            .await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path).send().await
    }
}

impl Call {
    /// Adds a header.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.builder = self.builder.header(name.as_ref(), value.as_ref());
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: RequestBody) -> Self {
        self.body = body;
        self
    }

    /// Sends it over HTTP/1.1.
    pub async fn send(self) -> Answer {
        let stream = TcpStream::connect(self.client.address)
            .await
            .expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("a handshake");
        let driving = tokio::spawn(connection);
        let request = self.builder.body(self.body).expect("a request");
        let answer = Answer::read(sender.send_request(request).await.expect("an answer")).await;
        drop(sender);
        driving.abort();
        answer
    }

    /// Sends it over HTTP/2 with prior knowledge.
    pub async fn send_h2(self) -> Answer {
        let stream = TcpStream::connect(self.client.address)
            .await
            .expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a handshake");
        let driving = tokio::spawn(connection);
        let mut request = self.builder.body(self.body).expect("a request");
        let uri = format!("http://{}{}", self.client.address, request.uri());
        *request.uri_mut() = Uri::try_from(uri).expect("a URI");
        request.headers_mut().remove(header::HOST);
        let answer = Answer::read(sender.send_request(request).await.expect("an answer")).await;
        drop(sender);
        driving.abort();
        answer
    }
}

impl Answer {
    async fn read(response: http::Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    /// A header that must be there once.
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name} in {:?}", self.headers);
        values[0].to_str().expect("text")
    }

    /// Whether there is no such header.
    pub fn lacks(&self, name: &str) -> bool {
        !self.headers.contains_key(name)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Asserts the status, showing the body where it differs.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{:?} {:?}",
            self.headers,
            self.body
        );
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
