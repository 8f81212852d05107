//! A registry that answers by a script.
//!
//! Owns: [`ScriptedPeer`].

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a peer does after it has sent bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It closes the connection.
    Close,
    /// It keeps the connection, and sends nothing more.
    Stall,
}

/// The bytes that answer the head of a request.
pub(crate) type Script = dyn Fn(&str) -> (Vec<u8>, After) + Send + Sync;

/// A registry that answers each request on a connection of its own. It listens on every address of this machine, so
/// 127.0.0.1 and 127.0.0.2 are two hosts of the same port.
#[derive(Debug)]
pub(crate) struct ScriptedPeer {
    /// The port.
    pub(crate) port: u16,
    /// The heads of all requests.
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl ScriptedPeer {
    pub(crate) async fn start(script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                tokio::spawn(answer(stream, script, seen));
            }
        });
        Self { port, heads, task }
    }
}

impl Drop for ScriptedPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    seen.lock().push(head.clone());
    let (answer, after) = script(&head);
    // A client that has seen enough closes the connection.
    stream.write_all(&answer).await.unwrap_or_default();
    if after == After::Stall {
        std::future::pending::<()>().await;
    }
}

/// Returns an answer that ends with its connection.
pub(crate) fn response(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

/// Returns a whole answer with its length.
pub(crate) fn whole(body: &[u8]) -> Vec<u8> {
    response(200, &format!("Content-Length: {}\r\n", body.len()), body)
}
