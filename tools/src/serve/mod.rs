//! Runs the registry: listen, open, start the admin socket, serve, drain, close.
//!
//! Owns: the order of these steps, and their messages.
//! Refuses: HTTP and storage, which the libraries provide.

mod access;
mod banner;
mod files;
mod guard;
mod memory;
mod signals;
pub(crate) mod threads;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonnage_engine::{Options, Store};
use tonnage_server::{AdminSocket, Bound, Locations, ServeError, Server, ServerOptions};

pub(crate) use self::access::failure as access_failure;
use self::banner::Started;
use self::files::{Share, Shares};
pub(crate) use self::guard::GuardOptions;
use self::signals::Signals;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging;
use crate::runtime::env_with;

/// Options of `serve`.
#[derive(Debug)]
pub(crate) struct ServeOptions {
    /// Directory of the store, absolute.
    pub(crate) data: PathBuf,
    /// Encryption and access control.
    pub(crate) guard: GuardOptions,
    /// The store's options.
    pub(crate) store: Options,
    /// The server's options.
    pub(crate) server: ServerOptions,
    /// Whether the operator set the number of connections.
    pub(crate) connections_set: bool,
    /// Whether the operator set the number of files of blobs.
    pub(crate) open_files_set: bool,
    /// The configured I/O backend.
    pub(crate) io: &'static str,
    /// Whether lines are JSON.
    pub(crate) json: bool,
}

/// Serves until a signal arrives, then drains and closes.
pub(crate) async fn serve(mut options: ServeOptions) -> Result<Exit, Failure> {
    keep_within_files(&mut options)?;
    let mut signals = Signals::take()
        .map_err(|error| Failure::new(Exit::Disk, format!("signals cannot be taken: {error}")))?;
    let certificate = options.guard.read_certificate()?;
    let admin_tls = options.guard.tls.is_some() && options.server.admin_tls;
    let has_own_address = matches!(options.server.locations, Locations::Base(_));
    let mut bound = Server::bind(options.server).map_err(|error| listen_failure(&error))?;
    let (env, why_not_io_uring) = env_with(options.io)?;
    let backend = env.io.backend();
    let opened = tokio::select! {
        opened = Store::open(env, &options.data, options.store) => opened,
        // Recovery may be interrupted at any point: there is nothing to drain, and the next start repeats it.
        (name, _) = signals.next() => {
            tracing::info!(signal = name, "stopped while the store was being opened; the next start opens it");
            return Ok(Exit::Done);
        }
    };
    let (store, report) = opened.map_err(|error| Failure::of_store(&error, &options.data))?;
    let guarded = options.guard.apply(&mut bound, certificate, &options.data);
    let access = match guarded {
        Ok(access) => access,
        Err(failure) => {
            // A store that is not closed is recovered by the next start.
            store.close().await.unwrap_or_default();
            return Err(failure);
        }
    };
    let mut admin_socket = start_admin_socket(&store, &options.data);
    let started = Started {
        data: &options.data,
        address: bound.address(),
        admin: bound.admin_address(),
        backend,
        why_not_io_uring: why_not_io_uring.as_ref(),
        configured: options.io,
        report: &report,
        tls: options.guard.tls.as_ref(),
        admin_tls,
        access: access.as_ref(),
        has_own_address,
    };
    if options.json {
        started.log();
        started.print_first_admin();
    } else {
        logging::flush();
        started.print();
    }
    started.warn();
    memory::start();
    run(bound, store.clone(), signals).await?;
    if let Some(admin_socket) = &mut admin_socket {
        admin_socket.drain().await;
    }
    // Requests that were aborted may still hold the store, which must not keep the journal from being closed.
    store
        .close()
        .await
        .map_err(|error| Failure::of_store(&error, &options.data))?;
    // Last, while `store` still holds the lock, because the next server's socket has the same name.
    drop(admin_socket);
    tracing::info!("the store is closed");
    Ok(Exit::Done)
}

/// Raises the limit of open files to the options' needs. If the system does not allow that, reduces the options.
fn keep_within_files(options: &mut ServeOptions) -> Result<(), Failure> {
    let wanted = Shares {
        connections: Share {
            count: options.server.connections_max,
            is_set: options.connections_set,
        },
        blobs: Share {
            count: options.store.open_files_max,
            is_set: options.open_files_set,
        },
    };
    let allowed = files::allow(wanted.needed() + files::SLACK);
    let shares = wanted.within(allowed)?;
    options.server.connections_max = shares.connections.count;
    options.store.open_files_max = shares.blobs.count;
    Ok(())
}

/// Starts the admin socket. Pushes and pulls do not depend on it, so the server also runs on a file system without
/// sockets.
fn start_admin_socket(store: &Store, data: &Path) -> Option<AdminSocket> {
    AdminSocket::start(store.clone())
        .inspect_err(|error| {
            tracing::warn!(
                %error,
                data = %data.display(),
                "the admin socket could not be created: `tonnage stats`, `repo` and `tag` work only while this server is stopped"
            );
        })
        .ok()
}

/// Serves until the first signal; the second ends the process at once.
async fn run(bound: Bound, store: Store, mut signals: Signals) -> Result<(), Failure> {
    let drain = Arc::new(tokio::sync::Notify::new());
    let draining = Arc::clone(&drain);
    let watch = async move {
        let (name, _) = signals.next().await;
        tracing::info!(
            signal = name,
            "draining; a second signal stops the server at once"
        );
        draining.notify_one();
        let (name, code) = signals.next().await;
        tracing::warn!(signal = name, "stopping at once; the next start recovers");
        exit_by_signal(code)
    };
    let serving = bound.run(store, async move { drain.notified().await });
    tokio::select! {
        served = serving => served
            .map_err(|error| Failure::new(Exit::Network, format!("the server stopped: {error}"))),
        never = watch => never,
    }
}

/// Ends the process with the exit code that a shell expects after a signal.
#[expect(
    clippy::exit,
    reason = "a second signal ends the process at once; no destructor may delay it"
)]
fn exit_by_signal(signal: i32) -> ! {
    logging::flush();
    std::process::exit(128 + signal)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "std's list of kinds grows")]
fn listen_failure(error: &ServeError) -> Failure {
    let failure = Failure::new(Exit::Network, error.to_string());
    let ServeError::Bind {
        source, purpose, ..
    } = error
    else {
        return failure;
    };
    let flag = if *purpose == "the registry" {
        "--listen"
    } else {
        "--admin-listen"
    };
    match source.kind() {
        std::io::ErrorKind::AddrInUse => failure
            .hint("another process uses this address, perhaps another tonnage")
            .hint(format!("use another one: {flag} 127.0.0.1:PORT")),
        std::io::ErrorKind::PermissionDenied => failure.hint(format!(
            "ports below 1024 require a privilege; use another one: {flag} ADDR"
        )),
        std::io::ErrorKind::AddrNotAvailable => failure.hint(format!(
            "this machine does not have this address; use one that it has: {flag} ADDR"
        )),
        _ => failure,
    }
}
