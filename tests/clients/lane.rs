//! State that the tests with clients share: the registry under test, the clients, and the table of results.
//!
//! Owns: [`Lane`], [`Registry`], [`Row`]. Refuses: to skip a missing client without a message.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tonnage_tests::process::{Server, folder};
use tonnage_tests::say;

use crate::call::Call;
use crate::program::{Client, Programs, Required};

/// The context of a test. All but its name is shared by all tests.
#[derive(Debug, Clone)]
pub struct Lane {
    pub programs: Arc<Programs>,
    required: Required,
    rows: Arc<Mutex<Vec<Row>>>,
    names: Arc<AtomicU64>,
    test: &'static str,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub client: String,
    pub version: String,
    pub test: String,
    pub operation: String,
    pub result: String,
}

/// The registry of one test: its own `tonnage`, or the one that `TONNAGE_TEST_REGISTRY` names.
#[derive(Debug)]
pub struct Registry {
    pub address: SocketAddr,
    pub server: Option<Server>,
    /// A directory for the files of the test, removed with this value.
    pub folder: tempfile::TempDir,
}

impl Registry {
    /// Returns `HOST:PORT/NAME`, as clients write it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

impl Lane {
    pub fn new() -> Result<Self, String> {
        Ok(Self {
            programs: Arc::new(Programs::find()?),
            required: Required::of_environment(),
            rows: Arc::default(),
            names: Arc::new(AtomicU64::new(u64::from(std::process::id()) << 16)),
            test: "",
        })
    }

    /// Returns the same context for the test of this name.
    pub fn of_test(&self, test: &'static str) -> Self {
        Self {
            test,
            ..self.clone()
        }
    }

    /// Returns the name of the test.
    pub fn test(&self) -> &'static str {
        self.test
    }

    /// Starts a registry for one test, or returns the configured one.
    pub fn registry(&self) -> Result<Registry, String> {
        let folder = folder()?;
        if let Ok(named) = std::env::var("TONNAGE_TEST_REGISTRY") {
            let address = named
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .parse();
            let address = address.map_err(|e| format!("TONNAGE_TEST_REGISTRY={named}: {e}"))?;
            return Ok(Registry {
                address,
                server: None,
                folder,
            });
        }
        let server = Server::start()?;
        Ok(Registry {
            address: server.address(),
            server: Some(server),
            folder,
        })
    }

    /// Returns the name of a repository that was never used, also not in a registry that outlives this run.
    pub fn repository(&self, purpose: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("lane/{purpose}-{number:x}")
    }

    /// Returns whether `client` is installed. If not, prints that, or fails if it is required.
    pub fn has(&self, client: Client, test: &str) -> Result<bool, String> {
        let Err(why) = self.programs.get(client) else {
            return Ok(true);
        };
        self.skip(client, test, why)?;
        Ok(false)
    }

    /// Records that something was not tested. Fails if the client is required.
    pub fn skip(&self, client: Client, test: &str, why: &str) -> Result<(), String> {
        self.row(client, test, "SKIPPED");
        say::skipped(&format!("{} {test}", client.name()), why);
        if self.required.has(client) {
            return Err(format!(
                "{} is required (TONNAGE_TEST_CLIENTS): {why}",
                client.name()
            ));
        }
        Ok(())
    }

    /// Runs one client once, as prepared by `arguments`, and adds the result to the table.
    pub fn run(
        &self,
        client: Client,
        operation: &str,
        arguments: impl FnOnce(Call) -> Call,
    ) -> Result<String, String> {
        self.step(client, operation, || {
            arguments(self.programs.call(client)?).run()
        })
    }

    /// Does `work`, which is a result of `client`, and adds the result to the table.
    pub fn step<T>(
        &self,
        client: Client,
        operation: &str,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let result = work();
        self.row(
            client,
            operation,
            if result.is_ok() { "ok" } else { "FAILED" },
        );
        result.map_err(|why| format!("{}: {operation}: {why}", client.name()))
    }

    /// Does `work`, which sends the requests of a client that is not installed, and adds the result to the table.
    pub fn replay<T>(
        &self,
        (client, version): (&str, &str),
        operation: &str,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let result = work();
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        self.push(format!("{client} (replayed)"), version, operation, word);
        result.map_err(|why| format!("{client} (replayed): {operation}: {why}"))
    }

    fn row(&self, client: Client, operation: &str, result: &str) {
        let found = self.programs.get(client);
        let version = found.map_or("-", |found| &found.version);
        self.push(client.name().to_owned(), version, operation, result);
    }

    fn push(&self, client: String, version: &str, operation: &str, result: &str) {
        let row = Row {
            client,
            version: version.to_owned(),
            test: self.test.to_owned(),
            operation: operation.to_owned(),
            result: result.to_owned(),
        };
        self.rows
            .lock()
            .expect("the lock is not poisoned")
            .push(row);
    }

    /// Returns the results so far, sorted, without duplicates.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = self.rows.lock().expect("the lock is not poisoned").clone();
        rows.sort();
        rows.dedup();
        rows
    }
}

/// Reads a whole file. An error names it.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))
}
