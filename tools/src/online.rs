//! Asking a running server through its Unix socket.
//!
//! Owns: finding the socket, one request, its answer. Refuses: guessing: that nobody answers is told apart from a refusal, and that what
//! was named is not there from everything else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tonnage_engine::ADMIN_SOCKET;
use tonnage_server::operator::Missing;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::names;

/// Time for a whole answer; counting takes milliseconds.
const ANSWER_BOUND: Duration = Duration::from_secs(30);
/// How long an answer may take that comes after all of a repository was counted.
const COUNTED_BOUND: Duration = Duration::from_mins(10);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A running server's socket, by `--server` or in the directory of its store.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Whether it was named, so that there must be a server.
    named: bool,
}

impl Socket {
    /// The socket that `--server` names, else the one in `data`.
    pub(crate) fn find(server: Option<&str>, data: &Path) -> Result<Self, Failure> {
        let Some(server) = server else {
            return Ok(Self {
                path: data.join(ADMIN_SOCKET),
                named: false,
            });
        };
        let path = server.strip_prefix("unix:").unwrap_or(server);
        if path.is_empty() || path.contains("://") {
            let what = format!("--server {server} is no path of a socket");
            return Err(Failure::new(Exit::Usage, what).next(format!(
                "a server is asked through the socket in its data directory: --server DIR/{ADMIN_SOCKET}"
            )));
        }
        Ok(Self {
            path: PathBuf::from(path),
            named: true,
        })
    }

    /// The options that lead to the same store.
    pub(crate) fn place(&self) -> String {
        match self.path.parent().filter(|_| !self.named) {
            Some(data) => format!("--data {}", data.display()),
            None => format!("--server {}", self.path.display()),
        }
    }

    /// GETs `path` as JSON; `None` if there is no server and none was named.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        self.exchange(path, None).await
    }

    /// POSTs a question to `path` as JSON; `None` if there is no server and none was named.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<Option<T>, Failure> {
        let question =
            serde_json::to_vec(question).map_err(|error| self.failed(&error.to_string()))?;
        self.exchange(path, Some(question.into())).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        path: &str,
        question: Option<Bytes>,
    ) -> Result<Option<T>, Failure> {
        let stream = match self.connect() {
            Ok(stream) => stream,
            Err(error) if !self.named && nobody(&error) => return Ok(None),
            Err(error) => return Err(self.unreachable(&error)),
        };
        let bound = if question.is_some() {
            COUNTED_BOUND
        } else {
            ANSWER_BOUND
        };
        let answered = tokio::time::timeout(bound, send(stream, path, question)).await;
        let (status, body) = answered
            .map_err(|late| self.failed(&late.to_string()))?
            .map_err(|error| self.failed(&error.to_string()))?;
        if status == StatusCode::NOT_FOUND
            && let Ok(missing) = serde_json::from_slice::<Missing>(&body)
        {
            return Err(names::not_found(&missing, &self.place()));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let said = String::from_utf8_lossy(&body);
            return Err(
                Failure::new(Exit::Disk, format!("the server refused: {}", said.trim()))
                    .next("nothing was done; its log says more"),
            );
        }
        if status != StatusCode::OK {
            let said = String::from_utf8_lossy(&body);
            return Err(self.failed(&format!("{status}: {}", said.trim())));
        }
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| self.failed(&error.to_string()))
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = tonnage_server::with_short_path(&self.path, |path| {
            std::os::unix::net::UnixStream::connect(path)
        })?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "std's list of kinds grows")]
    fn unreachable(&self, error: &io::Error) -> Failure {
        let at = self.path.display();
        let failure = Failure::new(
            Exit::Network,
            format!("the server at {at} cannot be asked: {error}"),
        );
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                failure.next("its socket is for the user that runs it, and for root")
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                failure.next("no server is running there; without --server, a closed store is read")
            }
            _ => failure,
        }
    }

    fn failed(&self, why: &str) -> Failure {
        let at = self.path.display();
        Failure::new(
            Exit::Network,
            format!("the server at {at} gave no answer that can be used: {why}"),
        )
        .next(
            "a server and the command that asks it should be of one version; its log may say more",
        )
    }
}

/// No socket, no directory for one, or one that a killed server left behind.
fn nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

type Refused = Box<dyn std::error::Error + Send + Sync>;

async fn send(
    stream: UnixStream,
    path: &str,
    question: Option<Bytes>,
) -> Result<(StatusCode, Bytes), Refused> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer; what goes wrong with it reaches the request.
    tokio::spawn(connection);
    let mut request = Request::get(path);
    if question.is_some() {
        request = Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    }
    let request = request
        .header(http::header::HOST, "tonnage")
        .header(http::header::CONNECTION, "close")
        .body(Full::new(question.unwrap_or_default()))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
    Ok((head.status, body.to_bytes()))
}
