//! What the machine allows, measured in the same run: servers that do only what a pull or a push cannot avoid.
//!
//! Owns: [`Limit`] and how each is started. They are processes and speak HTTP, so that the same client measures them
//! and their CPU time compares. Refuses: storage, checks, every other duty of a registry.

pub mod drive;
mod hyper;
mod looped;
mod mapped;
pub mod nginx;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Subcommand;
use tonnage_benches::process::{Process, free_address};

/// A server that shows a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Pulls: a blocking thread writes a mapped file to the socket. Pushes: it receives, hashes, writes, syncs.
    Loop,
    /// nginx with sendfile, plain and TLS.
    Nginx,
    /// hyper, which answers with bytes in memory.
    Hyper,
}

impl Limit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::Nginx => "nginx",
            Self::Hyper => "bare hyper",
        }
    }
}

/// The hidden subcommand that runs a limit in its own process.
#[derive(Debug, Subcommand)]
pub enum Serve {
    /// Serve files from mappings, and receive pushes.
    Loop { address: SocketAddr, www: PathBuf },
    /// Serve small files from memory by hyper.
    Hyper { address: SocketAddr, www: PathBuf },
}

impl Serve {
    pub fn run(self) -> Result<(), String> {
        match self {
            Self::Loop { address, www } => looped::serve(address, &www),
            Self::Hyper { address, www } => hyper::serve(address, www),
        }
    }
}

/// Starts one of the limits that are part of this program, on the files in `www`.
pub fn start_own(limit: Limit, folder: &Path, www: &Path) -> Result<(SocketAddr, Process), String> {
    let address = free_address()?;
    let own = std::env::current_exe().map_err(|e| format!("find the own program: {e}"))?;
    let mut command = Command::new(own);
    let name = if limit == Limit::Hyper {
        "hyper"
    } else {
        "loop"
    };
    command.args(["limit", name, &address.to_string()]).arg(www);
    let mut process = Process::start(limit.name(), command, &folder.join(format!("{name}.log")))?;
    process.wait_until(|| std::net::TcpStream::connect(address).is_ok())?;
    Ok((address, process))
}
