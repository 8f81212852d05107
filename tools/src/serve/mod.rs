//! The registry's life in one process: listen, open, answer the operator, serve, drain, close.
//!
//! Owns: the order of these, and what is said about them.
//! Refuses: HTTP and storage; the libraries have them.

mod banner;
mod files;
mod memory;
mod signals;
pub(crate) mod threads;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonnage_engine::{Options, Store};
use tonnage_server::{AdminSocket, Bound, ServeError, Server, ServerOptions};

use self::banner::Started;
use self::files::{Share, Shares};
use self::signals::Signals;
use crate::exit::Exit;
use crate::failure::Failure;

/// What to serve, and how.
#[derive(Debug)]
pub(crate) struct ServeOptions {
    /// Directory of the store, absolute.
    pub(crate) data: PathBuf,
    /// The store's options.
    pub(crate) store: Options,
    /// The server's options.
    pub(crate) server: ServerOptions,
    /// Whether the operator set the number of connections.
    pub(crate) connections_given: bool,
    /// Whether the operator set the number of files of blobs.
    pub(crate) open_files_given: bool,
    /// The I/O backend that was asked for.
    pub(crate) io: &'static str,
    /// Whether lines are JSON.
    pub(crate) json: bool,
}

/// Serves until a signal comes, then drains and closes.
pub(crate) async fn serve(mut options: ServeOptions) -> Result<Exit, Failure> {
    keep_within_files(&mut options)?;
    let mut signals = Signals::take()
        .map_err(|error| Failure::new(Exit::Disk, format!("signals cannot be taken: {error}")))?;
    let bound = Server::bind(options.server).map_err(|error| of_listen(&error))?;
    let env = tonnage_server::runtime::env()
        .map_err(|error| threads::of_threads(format!("threads could not be started: {error}")))?;
    let backend = env.io.backend();
    let opened = tokio::select! {
        opened = Store::open(env, &options.data, options.store) => opened,
        // Recovery may be cut off anywhere: there is nothing to drain, and the next start begins it again.
        (name, _) = signals.next() => {
            tracing::info!(signal = name, "stopped while the store was being opened; the next start opens it");
            return Ok(Exit::Done);
        }
    };
    let (store, report) = opened.map_err(|error| Failure::of_store(&error, &options.data))?;
    let mut control = answer_operator(&store, &options.data);
    let started = Started {
        data: &options.data,
        address: bound.address(),
        admin: bound.admin_address(),
        backend,
        asked: options.io,
        report: &report,
    };
    if options.json {
        started.log();
    } else {
        started.print();
    }
    started.warn();
    memory::start();
    run(bound, store.clone(), signals).await?;
    if let Some(control) = &mut control {
        control.drain().await;
    }
    // What is still held by a request that was cut must not keep the journal from being closed.
    store
        .close()
        .await
        .map_err(|error| Failure::of_store(&error, &options.data))?;
    // Last, while `store` still holds the lock: the next server's socket has the same name.
    drop(control);
    tracing::info!("the store is closed");
    Ok(Exit::Done)
}

/// Allows as many open files as the options may take; where the system does not, takes fewer.
fn keep_within_files(options: &mut ServeOptions) -> Result<(), Failure> {
    let wanted = Shares {
        connections: Share {
            count: options.server.connections_max,
            given: options.connections_given,
        },
        blobs: Share {
            count: options.store.open_files_max,
            given: options.open_files_given,
        },
    };
    let allowed = files::allow(wanted.needed() + files::SLACK);
    let shares = wanted.within(allowed)?;
    options.server.connections_max = shares.connections.count;
    options.store.open_files_max = shares.blobs.count;
    Ok(())
}

/// Pushes and pulls do not depend on it, so a file system without sockets is no reason not to serve.
fn answer_operator(store: &Store, data: &Path) -> Option<AdminSocket> {
    AdminSocket::start(store.clone())
        .inspect_err(|error| {
            tracing::warn!(
                %error,
                data = %data.display(),
                "no socket for the operator: `tonnage stats`, `repo` and `tag` work only while this server is stopped"
            );
        })
        .ok()
}

/// Serves until the first signal; the second ends the process at once.
async fn run(bound: Bound, store: Store, mut signals: Signals) -> Result<(), Failure> {
    let drain = Arc::new(tokio::sync::Notify::new());
    let asked = Arc::clone(&drain);
    let watch = async move {
        let (name, _) = signals.next().await;
        tracing::info!(signal = name, "draining; a second signal ends at once");
        asked.notify_one();
        let (name, code) = signals.next().await;
        tracing::warn!(signal = name, "ending at once; the next start recovers");
        ended_by(code)
    };
    let serving = bound.run(store, async move { drain.notified().await });
    tokio::select! {
        served = serving => served
            .map_err(|error| Failure::new(Exit::Network, format!("the server stopped: {error}"))),
        never = watch => never,
    }
}

/// Ends the process as a shell expects after a signal.
#[expect(
    clippy::exit,
    reason = "that is what a second signal asks for: no destructor may delay it"
)]
fn ended_by(signal: i32) -> ! {
    std::process::exit(128 + signal)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "std's list of kinds grows")]
fn of_listen(error: &ServeError) -> Failure {
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
            .next("another process has this address, perhaps another tonnage")
            .next(format!("take another one: {flag} 127.0.0.1:PORT")),
        std::io::ErrorKind::PermissionDenied => failure.next(format!(
            "ports below 1024 need a privilege; take another one: {flag} ADDR"
        )),
        std::io::ErrorKind::AddrNotAvailable => failure.next(format!(
            "this machine has no such address; name one of its own: {flag} ADDR"
        )),
        _ => failure,
    }
}
