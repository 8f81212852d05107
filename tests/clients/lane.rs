//! What the tests of this lane share: the registry under test, the clients, and the table of what happened.
//!
//! Owns: [`Lane`], [`Outcome`], the rows of the table. Refuses: a client that is missing without a line that says so.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tonnage_tests::process::{Server, folder};
use tonnage_tests::say;

use crate::program::{Call, Client, Programs};

/// Shared by all tests of the lane.
#[derive(Debug)]
pub struct Lane {
    pub programs: Programs,
    rows: Mutex<Vec<Row>>,
    names: AtomicU64,
}

#[derive(Debug)]
struct Row {
    client: String,
    version: String,
    operation: String,
    result: String,
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
            programs: Programs::find()?,
            rows: Mutex::default(),
            names: AtomicU64::new(u64::from(std::process::id()) << 16),
        })
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

    /// Whether `client` is here; if not, says so, or fails where clients are required.
    pub fn has(&self, client: Client, test: &str) -> Result<bool, String> {
        let Err(why) = self.programs.get(client) else {
            return Ok(true);
        };
        self.skip(client, test, why)?;
        Ok(false)
    }

    /// Notes that something was not tested; an error where clients are required.
    pub fn skip(&self, client: Client, test: &str, why: &str) -> Result<(), String> {
        self.row(client, test, "SKIPPED");
        say::skipped(&format!("{} {test}", client.name()), why);
        if say::required("TONNAGE_TEST_CLIENTS") {
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

    fn row(&self, client: Client, operation: &str, result: &str) {
        let version = self
            .programs
            .get(client)
            .map_or("-", |found| &found.version);
        self.rows
            .lock()
            .expect("nobody panics holding it")
            .push(Row {
                client: client.name().to_owned(),
                version: version.to_owned(),
                operation: operation.to_owned(),
                result: result.to_owned(),
            });
    }

    /// Prints the table: client, version, operation, result; equal rows once with their number.
    pub fn print_table(&self) {
        let mut rows = self.rows.lock().expect("nobody panics holding it");
        rows.sort_by(|a, b| {
            (&a.client, &a.operation, &a.result).cmp(&(&b.client, &b.operation, &b.result))
        });
        say::aloud(&format!(
            "\n{:<8} {:<8} {:<52} result",
            "client", "version", "operation"
        ));
        let same = |a: &Row, b: &Row| {
            (&a.client, &a.operation, &a.result) == (&b.client, &b.operation, &b.result)
        };
        for rows in rows.chunk_by(same) {
            let row = &rows[0];
            let times = if rows.len() > 1 {
                format!(" x{}", rows.len())
            } else {
                String::new()
            };
            say::aloud(&format!(
                "{:<8} {:<8} {:<52} {}{times}",
                row.client, row.version, row.operation, row.result
            ));
        }
    }
}

/// Reads a whole file, naming it when that fails.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))
}
