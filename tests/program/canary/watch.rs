//! What the program shows while secrets are used, and which texts are secret.
//!
//! Owns: [`Watch`], and the [`Server`] whose log it gets. Refuses: to know where secrets are put (`canary`).

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::serving::{run_with, tonnage};

/// A part of each secret.
pub(super) const CANARY: &str = "c4n4ry";

/// What was shown, and what must not be.
pub(super) struct Watch {
    directory: tempfile::TempDir,
    /// Texts, with where they come from.
    pub(super) shown: Vec<(String, String)>,
    pub(super) secrets: Vec<String>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            shown: Vec::new(),
            secrets: vec![CANARY.to_owned()],
        }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file. Returns its path.
    pub(super) fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.at(name), text).unwrap();
        self.at(name).display().to_string()
    }

    pub(super) fn saw(&mut self, from: &str, text: String) {
        self.shown.push((from.to_owned(), text));
    }

    /// Runs a command with the password of alice on standard input and in its environment. Returns its exit code.
    pub(super) fn run(&mut self, arguments: &[&str]) -> i32 {
        let input = format!("{CANARY}-alice\n");
        let mut command = tonnage(arguments);
        for name in ["TONNAGE_SMOKE_PASSWORD", "TONNAGE_REPAIR_PASSWORD"] {
            command.env(name, input.trim());
        }
        let (code, stdout, stderr) = run_with(&mut command, input.as_bytes());
        self.saw(&arguments[..2].join(" "), stdout + &stderr);
        code
    }

    /// Makes every secret of a file one to look for: the lines of a key in PEM, and what is in quotes.
    pub(super) fn hide(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        let words = lines.flat_map(|line| line.split('"')).map(str::to_owned);
        let before = self.secrets.len();
        self.secrets.extend(words.filter(|word| word.len() > 40));
        assert!(
            self.secrets.len() > before,
            "no secret in {}",
            path.display()
        );
    }

    /// Takes an answer. One to who logs in has tokens for this client, which are secret everywhere else.
    pub(super) fn answered(&mut self, answer: String) {
        let tokens: Vec<&str> = answer.split("token\":\"").skip(1).collect();
        if tokens.is_empty() {
            return self.saw("answers", answer);
        }
        for token in tokens {
            let (token, _) = token.split_once('"').unwrap();
            let parts = token.split('.').skip(1).map(str::to_owned);
            self.secrets.extend(parts);
        }
    }

    /// Checks that no secret was shown.
    pub(super) fn check(&self) {
        for (from, text) in &self.shown {
            for secret in &self.secrets {
                let found = text.lines().find(|line| line.contains(secret));
                assert_eq!(found, None, "{from} shows {secret}");
            }
        }
    }

    /// Returns how often a text was shown.
    pub(super) fn count(&self, from: &str, text: &str) -> usize {
        let shown = self.shown.iter().filter(|(place, _)| place == from);
        shown.map(|(_, shown)| shown.matches(text).count()).sum()
    }
}

/// A server that logs everything, as JSON.
pub(super) struct Server {
    child: Child,
    lines: Receiver<String>,
    log: String,
    pub(super) registry: String,
    pub(super) admin: String,
}

impl Server {
    pub(super) fn start(data: &Path, options: &[&str]) -> Self {
        let mut command = tonnage(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.args(["--log-level", "trace", "--log-format", "json", "--data"]);
        command.arg(data).args(options).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = channel();
        // It ends with the server.
        std::thread::spawn(move || stderr.lines().try_for_each(|line| send.send(line.unwrap())));
        let mut this = Self {
            child,
            lines,
            log: String::new(),
            registry: String::new(),
            admin: String::new(),
        };
        let ready: serde_json::Value = serde_json::from_str(&this.until("\"ready\"")).unwrap();
        let address = |name: &str| ready[name].as_str().unwrap().to_owned();
        (this.registry, this.admin) = (address("registry"), address("admin"));
        this
    }

    /// Waits for a line of the log.
    pub(super) fn until(&mut self, text: &str) -> String {
        loop {
            let line = self
                .lines
                .recv()
                .unwrap_or_else(|_| panic!("no {text}: {}", self.log));
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Stops it. Returns the whole log.
    pub(super) fn end(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let rest: Vec<String> = self.lines.iter().collect();
        assert!(self.child.wait().unwrap().success());
        std::mem::take(&mut self.log) + &rest.join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

/// Sends a request, and returns the whole answer.
pub(super) fn ask(address: &str, line: &str, fields: &[String], body: &str) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !fields.iter().any(|field| field.starts_with("Host:")) {
        head = format!("{head}Host: {address}\r\n");
    }
    for field in fields {
        head = format!("{head}{field}\r\n");
    }
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The server may end the connection of a request that it rejects.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}
