//! The registries that are compared: which there are, where their programs are, how each is started.
//!
//! Owns: [`Kind`], [`Program`]. Refuses: settings that favour one of them. Each runs with its defaults, with durability
//! on, and logs errors only.

mod distribution;
mod zot;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tonnage_benches::process::{Process, answers, free_address};
use tonnage_benches::tonnage::{self, Extra, Tonnage};

use crate::tls::Certificate;

/// How a registry is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tonnage,
    Distribution,
    Zot,
}

/// A program, and the name under which its figures are reported.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    pub kind: Kind,
    pub path: PathBuf,
}

/// A registry that runs.
pub struct Started {
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    pub process: Process,
}

/// Returns the program under test, and the peers; those that are not there are reported on stderr.
pub fn find(under_test: Option<PathBuf>, peers: &[String]) -> Result<Vec<Program>, String> {
    let path = under_test.map_or_else(tonnage::find, Ok)?;
    let mut all = vec![Program {
        name: "tonnage".into(),
        kind: Kind::Tonnage,
        path,
    }];
    let defaults = ["distribution".to_owned(), "docker-registry".to_owned()];
    let wanted = if peers.is_empty() {
        &defaults[..]
    } else {
        peers
    };
    for peer in wanted {
        match find_peer(peer) {
            Ok(program) => all.push(program),
            Err(why) if peers.is_empty() => eprintln!("SKIPPED: {peer}: {why}"),
            Err(why) => return Err(format!("--peer {peer}: {why}")),
        }
    }
    Ok(all)
}

/// Finds a peer by `NAME` or `NAME=PATH`. The name says which configuration it gets.
fn find_peer(peer: &str) -> Result<Program, String> {
    let (name, path) = match peer.split_once('=') {
        Some((name, path)) => (name, Some(PathBuf::from(path))),
        None => (peer, None),
    };
    let kind = match name {
        _ if name.contains("zot") => Kind::Zot,
        _ if name.contains("tonnage") => Kind::Tonnage,
        _ => Kind::Distribution,
    };
    let path = match (path, name) {
        (Some(path), _) => path,
        (None, "distribution") => distribution::build()?,
        (None, "docker-registry") => PathBuf::from("/usr/bin/docker-registry"),
        (None, _) => return Err("name its program: NAME=PATH".into()),
    };
    if !path.is_file() {
        return Err(format!(
            "there is no {}; install it, or name another by NAME=PATH",
            path.display()
        ));
    }
    Ok(Program {
        name: name.to_owned(),
        kind,
        path,
    })
}

impl Program {
    /// Returns the version that the program reports, without the path that some print before it.
    pub fn version(&self) -> String {
        let output = Command::new(&self.path).arg("--version").output();
        let text = output.map(|out| {
            let said = if out.stdout.is_empty() {
                out.stderr
            } else {
                out.stdout
            };
            let said = String::from_utf8_lossy(&said).into_owned();
            let line = said.lines().next().unwrap_or_default().trim();
            let rest = line.strip_prefix(&*self.path.to_string_lossy());
            rest.unwrap_or(line).trim().to_owned()
        });
        text.unwrap_or_else(|e| format!("unknown ({e})"))
    }

    /// Starts the program on the empty folder `folder`.
    pub fn start(&self, folder: &Path, tls: Option<&Certificate>) -> Result<Started, String> {
        if self.kind == Kind::Tonnage {
            let admin = Some(free_address()?);
            let tls = tls.map(|tls| (tls.certificate.as_path(), tls.key.as_path()));
            let started = Tonnage::start(&self.name, &self.path, folder, Extra { admin, tls })?;
            return Ok(Started {
                address: started.address,
                admin,
                process: started.process,
            });
        }
        let (address, config) = (free_address()?, folder.join("config"));
        let text = match self.kind {
            Kind::Zot => zot::config(&folder.join("data"), address, tls),
            _ => distribution::config(&folder.join("data"), address, tls),
        };
        std::fs::write(&config, text).map_err(|e| format!("write {}: {e}", config.display()))?;
        let mut command = Command::new(&self.path);
        command
            .env("OTEL_TRACES_EXPORTER", "none")
            .arg("serve")
            .arg(config);
        let mut process = Process::start(&self.name, command, &folder.join("log"))?;
        process.wait_until(|| match tls {
            None => answers(address),
            Some(_) => TcpStream::connect(address).is_ok(),
        })?;
        Ok(Started {
            address,
            admin: None,
            process,
        })
    }
}
