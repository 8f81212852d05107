//! The operator's socket: a Unix socket in the store's directory, for the online commands.
//!
//! Owns: [`AdminSocket`], its path and its lifetime. Its mode is 0600, so only the owner of the store and root can
//! connect.
//! Refuses: the content of requests and answers (`routes`), and network addresses.
//!
//! Invariants: the socket is created only while the store's lock is held, so an existing one was left by a killed
//! server. Its mode is set before connections are accepted. It is removed before the lock is released.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonnage_engine::{ADMIN_SOCKET, Store};

use super::routes;

/// Longest address of a Unix socket in bytes, its final zero included.
const ADDRESS_BYTES_MAX: usize = 108;
/// Connections that the kernel queues until they are accepted.
const BACKLOG: u32 = 64;

/// How long requests have to end once no more are taken.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The admin socket, served by a task. Dropping it removes the socket at once.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    draining: CancellationToken,
    task: JoinHandle<()>,
}

impl AdminSocket {
    /// Creates the socket of an open store and serves it in a task.
    pub fn start(store: Store) -> io::Result<Self> {
        let path = store.path().join(ADMIN_SOCKET);
        let listener = listen(&path)?;
        let router = routes::router(store);
        let draining = CancellationToken::new();
        let drained = draining.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(drained);
            if let Err(error) = serving.await {
                tracing::error!(%error, "the admin socket failed, so online commands cannot connect; restart the server");
            }
        });
        Ok(Self {
            path,
            draining,
            task,
        })
    }

    /// Takes no more requests and waits, for a limited time, until those that were taken have their answers. Call it before
    /// the store is closed.
    pub async fn drain(&mut self) {
        self.draining.cancel();
        if tokio::time::timeout(DRAIN_MAX, &mut self.task)
            .await
            .is_err()
        {
            tracing::warn!("admin operations did not end in time; their clients get no answer");
            self.task.abort();
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the admin socket could not be removed; the next start replaces it");
        }
    }
}

/// Binds the socket, and replaces an existing socket of that name.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::other(
                "a file that is not a socket has this name; move it away",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixSocket::new_stream()?;
    with_short_path(path, |short| socket.bind(short))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

/// Calls `use_it` with `path`, or with a short path to the same file if it is too long for a socket's address.
pub fn with_short_path<T>(
    path: &Path,
    use_it: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a path longer than a socket's address can be bound, with its mode; the socket of a killed server is
    /// replaced, but no other file.
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
            async { with_short_path(&path, |path| std::os::unix::net::UnixStream::connect(path)) },
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
