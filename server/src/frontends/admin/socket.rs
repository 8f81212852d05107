//! The operator's socket: a Unix socket in the store's directory, for the online commands.
//!
//! Owns: [`Control`], [`Stats`], the socket's paths and its life. Who may connect is who may open the file: mode 0600.
//! Refuses: what its questions mean (`operator`), bytes of blobs, and any address of a network.
//!
//! Invariants: the socket is made only while the store's lock is held, so whatever has its name is a killed server's; its
//! mode is set before anybody can connect; it is gone before the lock is.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixSocket};
use tokio::task::JoinHandle;
use tonnage_engine::Error;
use tonnage_engine::recovery::superblock::ADMIN_SOCKET;
use tonnage_engine::store::{Store, StoreStats};

use crate::operator::{self, Refusal};

/// Where the numbers of a store are asked for.
pub const STATS_PATH: &str = "/v1/stats";
/// Where pages of repositories are asked for.
pub const LIST_REPOSITORIES_PATH: &str = "/v1/repositories/list";
/// Where a repository's deletion is asked for.
pub const DELETE_REPOSITORY_PATH: &str = "/v1/repositories/delete";
/// Where pages of tags are asked for.
pub const LIST_TAGS_PATH: &str = "/v1/tags/list";
/// Where the deletion of tags is asked for.
pub const DELETE_TAGS_PATH: &str = "/v1/tags/delete";
/// Largest question: the thousand tags that a command deletes at once.
const QUESTION_BYTES_MAX: usize = 256 << 10;
/// Version of the answers' layout; grows when a field changes its meaning or goes.
const VERSION: u32 = 1;
/// Most bytes of a Unix socket's address that the kernel takes, its closing zero included.
const ADDRESS_BYTES_MAX: usize = 108;
const JSON: &str = "application/json";
/// Commands that may wait to be accepted.
const BACKLOG: u32 = 64;

/// A store in numbers, as the socket tells them; [`StoreStats`] says what each means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the same words as the engine's, described there"
)]
pub struct Stats {
    pub lsn: u64,
    pub repositories: u64,
    pub blobs: u64,
    pub blob_bytes: u64,
    pub segments: u64,
    pub uploads: u64,
    pub delta_bytes: u64,
    pub disk_total_bytes: u64,
    pub disk_available_bytes: u64,
    pub poisoned: bool,
}

impl From<StoreStats> for Stats {
    fn from(stats: StoreStats) -> Self {
        Self {
            lsn: stats.lsn.0,
            repositories: stats.repositories,
            blobs: stats.blobs,
            blob_bytes: stats.blob_bytes,
            segments: stats.segments,
            uploads: stats.uploads,
            delta_bytes: stats.delta_bytes,
            disk_total_bytes: stats.disk_total_bytes,
            disk_available_bytes: stats.disk_available_bytes,
            poisoned: stats.poisoned,
        }
    }
}

/// The answer to [`STATS_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsAnswer {
    /// Version of this layout.
    pub version: u32,
    /// The numbers.
    #[serde(flatten)]
    pub stats: Stats,
}

/// The socket while it answers. Dropped, it goes at once; [`Control::stop`] also waits for its task.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Control {
    /// Makes the socket of an open store and answers on it, on a task of its own.
    pub fn start(store: Store) -> io::Result<Self> {
        let path = store.path().join(ADMIN_SOCKET);
        let listener = listen(&path)?;
        let router = Router::new()
            .route(STATS_PATH, get(stats))
            .route(LIST_REPOSITORIES_PATH, post(list_repositories))
            .route(DELETE_REPOSITORY_PATH, post(delete_repository))
            .route(LIST_TAGS_PATH, post(list_tags))
            .route(DELETE_TAGS_PATH, post(delete_tags))
            .layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX))
            .with_state(store);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the operator's socket answers no more; restart the server to have it back");
            }
        });
        Ok(Self { path, task })
    }

    /// Removes the socket and lets the store go.
    pub async fn stop(mut self) {
        self.task.abort();
        // Aborted just now: that it was is no news.
        drop((&mut self.task).await);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the operator's socket was not removed; the next start replaces it");
        }
    }
}

/// Takes the place of whatever socket has this name.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::other(
                "something else than a socket has its name",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixSocket::new_stream()?;
    with_short(path, |short| socket.bind(short))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

/// Calls `use_it` with `path`, or with another way to the same file where the path is too long for a socket's address.
pub fn with_short<T>(path: &Path, use_it: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd as _;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return use_it(path);
    };
    if path.as_os_str().len() < ADDRESS_BYTES_MAX {
        return use_it(path);
    }
    let directory = std::fs::File::open(directory)?;
    let link = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    use_it(&link.join(name))
}

async fn stats(State(store): State<Store>) -> Response {
    match count(&store).await {
        Ok(answer) => ([(header::CONTENT_TYPE, JSON)], answer).into_response(),
        Err(error) => {
            tracing::error!(%error, "the store could not be counted");
            // Whoever asks may read the store's files anyway, so the cause is no secret here.
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn list_repositories(State(store): State<Store>, question: Bytes) -> Response {
    answer(&question, async |asked: operator::ListRepositories| {
        operator::repositories(&store.view(), &asked).await
    })
    .await
}

async fn list_tags(State(store): State<Store>, question: Bytes) -> Response {
    answer(&question, async |asked: operator::ListTags| {
        operator::tags(&store.view(), &asked).await
    })
    .await
}

async fn delete_repository(State(store): State<Store>, question: Bytes) -> Response {
    answer(&question, async |asked: operator::DeleteRepository| {
        if asked.dry_run {
            operator::holdings(&store.view(), &asked.repository).await
        } else {
            to_its_end(async move { operator::delete_repository(&store, &asked.repository).await })
                .await
        }
    })
    .await
}

async fn delete_tags(State(store): State<Store>, question: Bytes) -> Response {
    answer(&question, async |asked: operator::DeleteTags| {
        let tags = if asked.dry_run {
            operator::find_tags(&store.view(), &asked.repository, &asked.tags).await
        } else {
            let deletion =
                async move { operator::delete_tags(&store, &asked.repository, &asked.tags).await };
            to_its_end(deletion).await
        };
        Ok(operator::DeletedTags { tags: tags? })
    })
    .await
}

/// Does what writes as a task of its own: it goes on, and is logged, when whoever asked went away.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the operator's request was cut off");
        Err(Refusal::Failed(Error::Closed))
    })
}

/// What is not there is 404 with a body that says so; a path that is not there has none.
async fn answer<Q: DeserializeOwned, A: Serialize>(
    question: &[u8],
    ask: impl AsyncFnOnce(Q) -> Result<A, Refusal>,
) -> Response {
    let asked = match serde_json::from_slice(question) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    match ask(asked).await {
        Ok(found) => json(StatusCode::OK, &found),
        Err(Refusal::Missing(missing)) => json(StatusCode::NOT_FOUND, &missing),
        Err(Refusal::Failed(error)) => {
            tracing::error!(%error, "the operator's request failed");
            let refused = matches!(
                error,
                Error::NoSpace { .. } | Error::NotAttempted { .. } | Error::Poisoned { .. }
            );
            let status = if refused {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            (status, format!("{error}\n")).into_response()
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the answer to the operator could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn count(store: &Store) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let answer = StatsAnswer {
        version: VERSION,
        stats: store.stats().await?.into(),
    };
    Ok(serde_json::to_vec(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a path longer than a socket's address is bound all the same, with its mode, and a dead server's
    /// socket is replaced, but no other file.
    #[tokio::test]
    async fn sockets_are_made_anywhere_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join(ADMIN_SOCKET);
        drop(listen(&path).unwrap());
        let listener = listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (connected, accepted) = tokio::join!(
            async { with_short(&path, |path| std::os::unix::net::UnixStream::connect(path)) },
            listener.accept()
        );
        connected.unwrap();
        accepted.unwrap();
        let file = directory.path().join(ADMIN_SOCKET);
        std::fs::write(&file, "mine").unwrap();
        listen(&file).unwrap_err();
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }
}
