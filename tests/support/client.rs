//! A client with one connection for each request, so that no request depends on earlier ones. A missing answer fails
//! the test.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;

pub use crate::http::Answer;
use crate::http::{Connection, Upload};

/// A client of one address.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    address: SocketAddr,
}

/// A request that is being built.
#[derive(Debug)]
pub struct Call {
    client: Client,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Upload,
}

/// Returns a body with a length.
pub fn whole(bytes: impl Into<Bytes>) -> Upload {
    Upload::bytes(bytes)
}

/// Returns a body without a length: `Transfer-Encoding: chunked`.
pub fn chunked(pieces: Vec<Bytes>) -> Upload {
    Upload::pieces(pieces)
}

impl Client {
    /// Creates a client of `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a request.
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call {
            client: *self,
            method,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Upload::empty(),
        }
    }

    /// Sends a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).send().await
    }

    /// Sends a HEAD.
    pub async fn head(&self, path: &str) -> Answer {
        self.call(Method::HEAD, path).send().await
    }

    /// Sends a POST without a body.
    pub async fn post(&self, path: &str) -> Answer {
        self.call(Method::POST, path).send().await
    }

    /// Sends a PUT.
    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Method::PUT, path).body(whole(body)).send().await
    }

    /// Sends a PATCH.
    pub async fn patch(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let call = self.call(Method::PATCH, path);
        call.body(whole(body)).send().await
    }

    /// Sends a DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path).send().await
    }
}

impl Call {
    /// Adds a header.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let header = (name.as_ref().to_lowercase(), value.as_ref().to_owned());
        self.headers.push(header);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: Upload) -> Self {
        self.body = body;
        self
    }

    /// Sends the request over HTTP/1.1.
    pub async fn send(self) -> Answer {
        let connection = Connection::connect(self.client.address).await;
        self.over(connection).await
    }

    /// Sends the request over HTTP/2 with prior knowledge.
    pub async fn send_h2(self) -> Answer {
        let connection = Connection::connect_h2(self.client.address).await;
        self.over(connection).await
    }

    async fn over(self, connection: Result<Connection, String>) -> Answer {
        let headers = self.headers.iter();
        let headers: Vec<_> = headers.map(|(name, value)| (&**name, &**value)).collect();
        let answer = async {
            let mut connection = connection?;
            let sent = connection.send(self.method, &self.path, &headers, self.body);
            sent.await
        };
        answer.await.unwrap_or_else(|why| panic!("{why}"))
    }
}
