//! A minimal HTTP/1.1 client over a blocking socket, plain or TLS, so that its cost does not dominate.
//!
//! Owns: [`Connection`]. Refuses: transfer codings; an answer without Content-Length is an error.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use tonnage_benches::wire::Answer;

use super::job::Endpoint;
use super::queues;

const BUFFER: usize = 256 << 10;
const HEAD_MAX: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(600);

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// One keep-alive connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    endpoint: Endpoint,
    local: SocketAddr,
    cipher: Option<String>,
    buffer: Vec<u8>,
    /// The part of the buffer that was received and not yet used.
    ready: std::ops::Range<usize>,
}

impl Connection {
    pub fn open(endpoint: &Endpoint) -> Result<Self, String> {
        Self::open_with(endpoint, vec![0; BUFFER])
    }

    fn open_with(endpoint: &Endpoint, buffer: Vec<u8>) -> Result<Self, String> {
        let doing = |e| format!("connect to {}: {e}", endpoint.address);
        let stream = TcpStream::connect(endpoint.address).map_err(doing)?;
        stream.set_nodelay(true).map_err(doing)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(doing)?;
        let local = stream.local_addr().map_err(doing)?;
        let (stream, cipher): (Box<dyn Stream>, _) = match &endpoint.ca {
            None => (Box::new(stream), None),
            Some(ca) => {
                let (stream, cipher) = over_tls(stream, ca)?;
                (Box::new(stream), Some(cipher))
            }
        };
        Ok(Self {
            stream,
            endpoint: endpoint.clone(),
            local,
            cipher,
            buffer,
            ready: 0..0,
        })
    }

    /// Replaces the connection with a new one.
    pub fn reopen(&mut self) -> Result<(), String> {
        // Closed first, so that the server stops.
        self.stream = Box::new(io::empty());
        *self = Self::open_with(&self.endpoint, std::mem::take(&mut self.buffer))?;
        Ok(())
    }

    /// Returns the cipher of the connection.
    pub fn cipher(&self) -> Option<String> {
        self.cipher.clone()
    }

    /// Sends a request whose body is `body`, and reads the head of the answer.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Answer, String> {
        self.send_head(method, target, headers, body.len() as u64, body)?;
        self.answer()
            .map_err(|why| format!("{method} {target}: {why}"))
    }

    /// Sends a request without the rest of its body, which the caller writes next.
    pub fn send_head(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        length: u64,
        first: &[u8],
    ) -> Result<(), String> {
        let counted = match method {
            "GET" | "HEAD" => String::new(),
            _ => format!("Content-Length: {length}\r\n"),
        };
        let host = self.endpoint.address;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{counted}{headers}\r\n");
        let mut whole = head.into_bytes();
        whole.extend_from_slice(first);
        self.send(&whole)
    }

    /// Sends a piece of a body.
    pub fn send(&mut self, piece: &[u8]) -> Result<(), String> {
        let sent = self
            .stream
            .write_all(piece)
            .and_then(|()| self.stream.flush());
        sent.map_err(|e| format!("send: {e}"))
    }

    /// Reads the head of an answer.
    pub fn answer(&mut self) -> Result<Answer, String> {
        let (mut head, mut seen) = (Vec::new(), 0);
        let end = loop {
            head.extend_from_slice(&self.buffer[self.ready.clone()]);
            if let Some(at) = head[seen..].windows(4).position(|w| w == b"\r\n\r\n") {
                break seen + at + 4;
            }
            if head.len() > HEAD_MAX {
                return Err("an answer's head without end".into());
            }
            seen = head.len().saturating_sub(3);
            self.receive()?;
        };
        // What was received beyond the head is the end of the buffer.
        self.ready = self.ready.end - (head.len() - end)..self.ready.end;
        head.truncate(end);
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or("no status line")?;
        let mut answer = Answer {
            status,
            length: 0,
            head,
        };
        answer.length = match answer.header("content-length") {
            Some(value) => value
                .parse()
                .map_err(|e| format!("Content-Length {value}: {e}"))?,
            None if matches!(status, 201 | 202 | 204 | 304) => 0,
            None => return Err(format!("no Content-Length: {}", answer.head)),
        };
        Ok(answer)
    }

    /// Reads the next `length` bytes of a body and passes them to `see`, in pieces.
    pub fn body(&mut self, length: u64, mut see: impl FnMut(&[u8])) -> Result<(), String> {
        let mut left = length;
        while left > 0 {
            if self.ready.is_empty() {
                self.receive()?;
            }
            let usable = (self.ready.len() as u64).min(left) as usize;
            let piece = self.ready.start..self.ready.start + usable;
            see(&self.buffer[piece]);
            self.ready.start += usable;
            left -= usable as u64;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), String> {
        match self.stream.read(&mut self.buffer) {
            Ok(0) => Err("the connection was closed".into()),
            Ok(read) => {
                self.ready = 0..read;
                Ok(())
            }
            Err(e) => Err(format!("receive: {e}")),
        }
    }

    /// Returns the bytes that the server wrote into its socket and the client has not used: those in its own buffer,
    /// and those in both sockets of the connection.
    pub fn unread_bytes(&self) -> Result<u64, String> {
        let queued = queues::unread(self.local, self.endpoint.address)?;
        Ok(queued + self.ready.len() as u64)
    }
}

/// TLS 1.3 with one cipher, so that every server is measured with the same: what `tonnage` negotiates with a client
/// that offers all.
fn over_tls(
    stream: TcpStream,
    ca: &Path,
) -> Result<(StreamOwned<ClientConnection, TcpStream>, String), String> {
    let doing = |e: &dyn std::fmt::Display| format!("TLS with {}: {e}", ca.display());
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca).map_err(|e| doing(&e))?;
    roots.add(certificate).map_err(|e| doing(&e))?;
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| doing(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(|e| doing(&e))?;
    let client = ClientConnection::new(Arc::new(config), name).map_err(|e| doing(&e))?;
    let mut stream = StreamOwned::new(client, stream);
    while stream.conn.is_handshaking() {
        let done: io::Result<_> = stream.conn.complete_io(&mut stream.sock);
        done.map_err(|e| doing(&e))?;
    }
    let cipher = stream.conn.negotiated_cipher_suite();
    let cipher = cipher.map_or("none".into(), |suite| format!("{:?}", suite.suite()));
    Ok((stream, cipher))
}
