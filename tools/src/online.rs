//! Requests to a running server through its Unix socket.
//!
//! Owns: finding the socket, one request, its answer. Refuses: falling back to the closed store, which `target` does.
//!
//! Invariant: an absent server, a server that refuses, and a name that does not exist are three different results.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonnage_engine::ADMIN_SOCKET;
use tonnage_server::ADMIN_PATH;
use tonnage_server::admin::{AdminAnswer, AdminRequest, NotFound};

use crate::exit::Exit;
use crate::failure::Failure;

/// Longest wait for statistics of a store; counting takes milliseconds.
const STATS_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest wait for any other answer; for some, a whole repository is counted.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(10);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A running server's socket, by `--server` or in the directory of its store.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Whether it was named explicitly, so that a server must exist.
    named: bool,
}

/// Advice where a change may have been made.
const UNKNOWN_OUTCOME: &str =
    "it is not known whether a change was made: list again to see; the server's log says more";

impl Socket {
    /// Returns the socket that `--server` names, else the one in `data`.
    pub(crate) fn find(server: Option<&str>, data: &Path) -> Result<Self, Failure> {
        let Some(server) = server else {
            return Ok(Self {
                path: data.join(ADMIN_SOCKET),
                named: false,
            });
        };
        let path = server.strip_prefix("unix:").unwrap_or(server);
        if path.is_empty() || path.contains("://") {
            let what = format!("--server {server} is not the path of a socket");
            return Err(Failure::new(Exit::Usage, what).hint(format!(
                "the socket is in the data directory of the server: --server DIR/{ADMIN_SOCKET}"
            )));
        }
        Ok(Self {
            path: PathBuf::from(path),
            named: true,
        })
    }

    /// Returns the options that select the same store.
    pub(crate) fn place(&self) -> String {
        match self.path.parent().filter(|_| !self.named) {
            Some(data) => format!("--data {}", data.display()),
            None => format!("--server {}", self.path.display()),
        }
    }

    /// Returns the socket that `--server` names.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.named.then_some(self.path.as_path())
    }

    /// Sends a request and waits for its answer. Returns `None` if there is no server and none was named.
    pub(crate) async fn ask(&self, request: &AdminRequest) -> Result<Option<AdminAnswer>, Failure> {
        let stream = match self.connect() {
            Ok(stream) => stream,
            Err(error) if !self.named && is_no_server(&error) => return Ok(None),
            Err(error) => return Err(self.unreachable(&error)),
        };
        let unusable = |error: &dyn std::fmt::Display| self.unusable(&error.to_string());
        let body = serde_json::to_vec(request).map_err(|error| unusable(&error))?;
        let answered = tokio::time::timeout(time_max(request), send(stream, body.into())).await;
        let Ok(answered) = answered else {
            let what = "the server did not answer in time".to_owned();
            return Err(Failure::new(Exit::Disk, what).hint(UNKNOWN_OUTCOME));
        };
        let (status, body) = answered.map_err(|error| unusable(&error))?;
        if status == StatusCode::NOT_FOUND
            && let Ok(missing) = serde_json::from_slice::<NotFound>(&body)
        {
            return Err(Failure::not_found(&missing, &self.place()));
        }
        let text = String::from_utf8_lossy(&body);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let what = format!("the server refused: {}", text.trim());
            return Err(
                Failure::new(Exit::Disk, what).hint("nothing was done; see the server's log")
            );
        }
        if status == StatusCode::CONFLICT {
            let what = format!("the server refused: {}", text.trim());
            let hint = "to see how far it is: tonnage jobs; to end it: tonnage jobs cancel NUMBER";
            return Err(Failure::new(Exit::InUse, what).hint(hint));
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            let what = format!("the server failed: {}", text.trim());
            return Err(Failure::new(Exit::Disk, what).hint(UNKNOWN_OUTCOME));
        }
        if status == StatusCode::BAD_REQUEST {
            let what = format!("the server rejected the request: {}", text.trim());
            return Err(Failure::new(Exit::Usage, what)
                .hint("nothing was done; use the same version of tonnage for both"));
        }
        if status != StatusCode::OK {
            return Err(self.unusable(&format!("{status}: {}", text.trim())));
        }
        let answer = serde_json::from_slice(&body).map_err(|error| unusable(&error))?;
        Ok(Some(answer))
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
            format!("the server at {at} cannot be reached: {error}"),
        );
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                failure.hint("run this command as the user that runs the server, or as root")
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => failure
                .hint("no server is running there; without --server, the closed store is opened"),
            _ => failure,
        }
    }

    /// Returns the failure for a server whose answer cannot be used.
    pub(crate) fn unusable(&self, why: &str) -> Failure {
        let at = self.path.display();
        let what = format!("the answer of the server at {at} cannot be used: {why}");
        Failure::new(Exit::Network, what)
            .hint("use the same version of tonnage for both; see also the server's log")
    }
}

/// Returns whether there is no socket, no directory for one, or only one that a killed server left.
fn is_no_server(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

fn time_max(request: &AdminRequest) -> Duration {
    if let AdminRequest::GetStats(_) = request {
        STATS_TIME_MAX
    } else {
        ANSWER_TIME_MAX
    }
}

type SendError = Box<dyn std::error::Error + Send + Sync>;

async fn send(stream: UnixStream, body: Bytes) -> Result<(StatusCode, Bytes), SendError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the answer; its errors are returned by the request.
    tokio::spawn(connection);
    let request = Request::post(ADMIN_PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::HOST, "tonnage")
        .header(http::header::CONNECTION, "close")
        .body(Full::new(body))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
    Ok((head.status, body.to_bytes()))
}
