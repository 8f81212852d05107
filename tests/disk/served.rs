//! The program under test, with its admin listener.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use tonnage_tests::process;

/// A server on free ports; killed when dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    /// The address of the registry.
    pub address: SocketAddr,
    /// The address of metrics and health.
    pub admin: SocketAddr,
    rest: Option<JoinHandle<String>>,
}

/// Runs the program to its end. Returns the exit code and both outputs.
pub fn run(arguments: &[&str], data: &Path) -> (Option<i32>, String) {
    let output = Command::new(process::program().expect("the program"))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .output()
        .expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

/// The arguments of a server on free ports.
pub const SERVE: [&str; 5] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
];

impl Served {
    /// Starts a server and waits until it serves. Returns its output if it does not.
    pub fn start(data: &Path) -> Result<Self, String> {
        Self::start_with(data, &[])
    }

    /// Starts in the same way with further options of `serve`.
    pub fn start_with(data: &Path, options: &[&str]) -> Result<Self, String> {
        let mut child = Command::new(process::program()?)
            .args(SERVE)
            .args(options)
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        // The last line of the banner is the one for podman.
        while !said.contains("podman") {
            if stderr.read_line(&mut said).map_err(|e| e.to_string())? == 0 {
                drop(child.wait());
                return Err(said);
            }
        }
        let address = |name: &str| {
            let (_, rest) = said.split_once(&format!("  {name}"))?;
            let (_, rest) = rest.split_once("http://")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let (registry, admin) = (address("registry"), address("admin"));
        // The output is read to its end, because a full pipe would block the server.
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            drop(stderr.read_to_string(&mut rest));
            rest
        });
        Ok(Self {
            child,
            address: registry.expect("the banner names the address"),
            admin: admin.expect("the banner names the address"),
            rest: Some(rest),
        })
    }

    /// Returns whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Kills it with `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("a child");
    }

    /// Stops it with SIGTERM. Returns the exit code and its output since it served.
    pub fn stop(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the server runs");
        let rest = self.rest.take().expect("stopped once").join();
        let status = self.child.wait().expect("a child");
        (status.code(), rest.expect("the reader ends"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
