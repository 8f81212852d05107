//! A minimal HTTP/1.1 client, so that its cost does not dominate: a request is one write, a body is read into one
//! buffer and discarded.
//!
//! Owns: [`Wire`]. Refuses: transfer codings. Both registries answer with Content-Length; any other answer is an error.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD_MAX: usize = 64 << 10;
const PIECE: usize = 1 << 20;

/// One keep-alive connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
}

/// Status and headers. The length is that of the body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub length: u64,
}

impl Answer {
    /// Returns the value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Fails unless the status is `status`.
    pub fn expect(self, status: u16, doing: &str) -> Result<Self, String> {
        if self.status == status {
            return Ok(self);
        }
        Err(format!(
            "{doing}: {} instead of {status}: {}",
            self.status, self.head
        ))
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("connect to {address}: {e}"))?;
        stream
            .set_nodelay(true)
            .map_err(|e| format!("set TCP_NODELAY: {e}"))?;
        Ok(Self {
            stream,
            address,
            buffer: vec![0; PIECE],
        })
    }

    /// Sends a request whose body is the concatenation of `parts`, and reads the answer; `see` gets the body's pieces.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        parts: &[&[u8]],
        mut see: impl FnMut(&[u8]),
    ) -> Result<Answer, String> {
        let doing = |e: std::io::Error| format!("{method} {target}: {e}");
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let authority = self.address;
        let counted = match method {
            "GET" | "HEAD" => String::new(),
            _ => format!("Content-Length: {length}\r\n"),
        };
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n{counted}{headers}\r\n");
        if length <= 16 << 10 {
            let mut whole = head.into_bytes();
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            self.stream.write_all(&whole).await.map_err(doing)?;
        } else {
            self.stream
                .write_all(head.as_bytes())
                .await
                .map_err(doing)?;
            for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
                self.stream.write_all(piece).await.map_err(doing)?;
            }
        }
        self.answer(&mut see)
            .await
            .map_err(|why| format!("{method} {target}: {why}"))
    }

    async fn answer(&mut self, see: &mut impl FnMut(&[u8])) -> Result<Answer, String> {
        let mut filled = 0;
        let head_end = loop {
            let read = self.read(filled).await?;
            filled += read;
            let found = self.buffer[..filled]
                .windows(4)
                .position(|w| w == b"\r\n\r\n");
            match found {
                Some(at) => break at + 4,
                None if filled > HEAD_MAX => return Err("an answer's head without end".into()),
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut answer = Answer {
            status: status.ok_or("no status line")?,
            head,
            length: 0,
        };
        let has_body = !matches!(answer.status, 204 | 304);
        let length = match answer.header("content-length") {
            Some(value) => value
                .parse()
                .map_err(|e| format!("Content-Length {value}: {e}"))?,
            None if !has_body || answer.status == 202 || answer.status == 201 => 0,
            None => return Err(format!("no Content-Length: {}", answer.head)),
        };
        answer.length = length;
        let mut left = length;
        let first = filled - head_end;
        see(&self.buffer[head_end..filled]);
        left -= (first as u64).min(left);
        while left > 0 {
            let read = self.read(0).await?;
            see(&self.buffer[..read]);
            left = left
                .checked_sub(read as u64)
                .ok_or("more bytes than the answer announced")?;
        }
        Ok(answer)
    }

    async fn read(&mut self, from: usize) -> Result<usize, String> {
        match self.stream.read(&mut self.buffer[from..]).await {
            Ok(0) => Err("the connection was closed".into()),
            Ok(read) => Ok(read),
            Err(e) => Err(e.to_string()),
        }
    }
}
