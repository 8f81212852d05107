//! A registry on loopback with a real store in its own directory.
//!
//! Owns: its start, stop and restart. Refuses: simulated parts, which the tests of the engine use.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonnage_engine::{Options, Store};
use tonnage_server::registry::Registry;
use tonnage_server::registry::ports::BlobStore;
use tonnage_server::{ServeError, Server, ServerOptions, embedded};

use crate::client::Client;

/// A running registry.
#[derive(Debug)]
pub struct TestRegistry {
    /// Its store, for checks beyond the protocol.
    pub store: Store,
    address: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl TestRegistry {
    /// Starts one with default options on free ports.
    pub async fn start() -> Self {
        Self::with(ServerOptions::default()).await
    }

    /// Starts one with these options, except for the addresses.
    pub async fn with(options: ServerOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::over(directory, options).await
    }

    /// Starts one with these options, and a store with those.
    pub async fn with_store(options: ServerOptions, store: Options) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::over_ports(directory, options, store, |_, blobs| blobs).await
    }

    /// Starts one whose blob store is `wrap` of the real one.
    pub async fn wrapped(
        wrap: impl FnOnce(&Store, Arc<dyn BlobStore>) -> Arc<dyn BlobStore>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (server, store) = (ServerOptions::default(), Options::default());
        Self::over_ports(directory, server, store, wrap).await
    }

    async fn over(directory: TempDir, options: ServerOptions) -> Self {
        Self::over_ports(directory, options, Options::default(), |_, blobs| blobs).await
    }

    async fn over_ports(
        directory: TempDir,
        options: ServerOptions,
        store: Options,
        wrap: impl FnOnce(&Store, Arc<dyn BlobStore>) -> Arc<dyn BlobStore>,
    ) -> Self {
        let data = directory.path().join("data");
        let env = tonnage_server::runtime::env().unwrap();
        let (store, _) = Store::open(env, &data, store)
            .await
            .expect("the store opens");
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut options = ServerOptions {
            listen: free,
            admin_listen: Some(free),
            ..options
        };
        // The host in requests that tests write as bytes.
        options.hostnames.push("x".parse().expect("a host"));
        let bound = Server::bind(options).expect("free ports");
        let (address, admin) = (
            bound.address(),
            bound.admin_address().expect("an admin address"),
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            stopped.await.unwrap_or_default();
        };
        let (blobs, catalog) = embedded::ports(store.clone());
        let collectors = vec![embedded::metrics(store.clone())];
        let registry = Registry::new(wrap(&store, blobs), catalog, bound.limits().clone());
        let serving = tokio::spawn(bound.run_registry(registry, collectors, shutdown));
        Self {
            store,
            address,
            admin,
            directory,
            stop,
            serving,
        }
    }

    /// Returns a client of the registry.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Returns a client of the admin listener.
    pub fn admin(&self) -> Client {
        Client::new(self.admin)
    }

    /// Shuts down as on SIGTERM. Returns the data directory.
    pub async fn stop(self) -> TempDir {
        self.stop.send(()).expect("the server is running");
        self.serving
            .await
            .expect("the server's task")
            .expect("a clean end");
        self.store.close().await.expect("the store closes");
        self.directory
    }

    /// Stops and starts again on the same data.
    pub async fn restart(self) -> Self {
        self.restart_after(|_| ()).await
    }

    /// Stops, calls `change` with the data directory, and starts again.
    pub async fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        let directory = self.stop().await;
        change(&directory.path().join("data"));
        Self::over(directory, ServerOptions::default()).await
    }
}
