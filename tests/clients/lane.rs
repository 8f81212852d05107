//! What the tests of this lane share: the registry under test, the clients, and the table of what happened.
//!
//! Owns: [`Lane`], [`Registry`], [`Row`]. Refuses: a client that is missing without a line that says so.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tonnage_tests::process::{Server, folder};
use tonnage_tests::say;

use crate::call::Call;
use crate::program::{Client, Programs, Required};

/// What a test has in its hands; all but its name is shared by all tests.
#[derive(Debug, Clone)]
pub struct Lane {
    pub programs: Arc<Programs>,
    required: Required,
    rows: Arc<Mutex<Vec<Row>>>,
    names: Arc<AtomicU64>,
    test: &'static str,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub client: String,
    pub version: String,
    pub test: String,
    pub operation: String,
    pub result: String,
}

/// The registry one test talks to: its own `tonnage`, or the one that `TONNAGE_TEST_REGISTRY` names.
#[derive(Debug)]
pub struct Registry {
    pub address: SocketAddr,
    pub server: Option<Server>,
    /// For what the test writes; goes with this value.
    pub folder: tempfile::TempDir,
}

impl Registry {
    /// `HOST:PORT/NAME` as clients write it.
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

    /// The same lane for the test of this name.
    pub fn of_test(&self, test: &'static str) -> Self {
        Self {
            test,
            ..self.clone()
        }
    }

    /// The test it is in the hands of.
    pub fn test(&self) -> &'static str {
        self.test
    }

    /// A registry for one test.
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

    /// A repository that nobody used before, also in a registry that lives longer than this run.
    pub fn repository(&self, purpose: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("lane/{purpose}-{number:x}")
    }

    /// Whether `client` is here; if not, says so, or fails where it is required.
    pub fn has(&self, client: Client, test: &str) -> Result<bool, String> {
        let Err(why) = self.programs.get(client) else {
            return Ok(true);
        };
        self.skip(client, test, why)?;
        Ok(false)
    }

    /// Notes that something was not tested; an error where the client is required.
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

    /// Runs one client once, as prepared by `arguments`, and puts the result into the table.
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

    /// Does `work`, which is what `client` is judged by, and puts the result into the table.
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

    /// Does `work`, which sends what a client that cannot be had sends, and puts the result into the table.
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
            .expect("nobody panics holding it")
            .push(row);
    }

    /// What happened so far, sorted, each once.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = self.rows.lock().expect("nobody panics holding it").clone();
        rows.sort();
        rows.dedup();
        rows
    }
}

/// Reads a whole file, naming it when that fails.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))
}
