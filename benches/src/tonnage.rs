//! Starts `tonnage serve` on a new or an existing store, with its defaults.
//!
//! Owns: [`Tonnage`]. Refuses: settings that other users of the program would not have.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::{Process, answers, free_address};

/// What a benchmark needs beside the defaults.
#[derive(Debug, Default, Clone, Copy)]
pub struct Extra<'a> {
    /// The address of the metrics.
    pub admin: Option<SocketAddr>,
    /// Certificate and key.
    pub tls: Option<(&'a Path, &'a Path)>,
}

/// A running `tonnage serve`.
#[derive(Debug)]
pub struct Tonnage {
    pub address: SocketAddr,
    pub process: Process,
}

impl Tonnage {
    /// Starts `program`, or the tonnage that cargo builds, in a temporary folder in `parent`. The folder is removed
    /// with the second part of the result.
    pub fn in_temporary(
        program: Option<PathBuf>,
        parent: &Path,
    ) -> Result<(Self, TempDir), String> {
        let program = program.map_or_else(find, Ok)?;
        fs::create_dir_all(parent).map_err(|e| format!("create the folder: {e}"))?;
        let folder = tempfile::tempdir_in(parent).map_err(|e| format!("make a folder: {e}"))?;
        let server = Self::start("tonnage", &program, folder.path(), Extra::default())?;
        Ok((server, folder))
    }

    /// Starts `program` on the store `folder/data`, under `name` in errors.
    pub fn start(
        name: &str,
        program: &Path,
        folder: &Path,
        extra: Extra<'_>,
    ) -> Result<Self, String> {
        let address = free_address()?;
        let admin = extra
            .admin
            .map_or("off".to_owned(), |address| address.to_string());
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(folder.join("data"));
        command.args(["--listen", &address.to_string(), "--admin-listen", &admin]);
        if let Some((certificate, key)) = extra.tls {
            command.args(["--tls", "files", "--tls-cert"]);
            command.arg(certificate).arg("--tls-key").arg(key);
        }
        let mut process = Process::start(name, command, &folder.join("log"))?;
        match extra.tls {
            None => process.wait_until(|| answers(address))?,
            Some(_) => process.wait_until(|| TcpStream::connect(address).is_ok())?,
        }
        Ok(Self { address, process })
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Has cargo build `tonnage`, and returns its path.
pub fn find() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("find the own program: {e}"))?;
    let folder = own.parent().ok_or("the own program is in no folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--workspace", "--bin", "tonnage"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status();
    let path = folder.join("tonnage");
    match built {
        Ok(status) if status.success() && path.is_file() => Ok(path),
        Ok(status) => Err(format!(
            "cargo build ended with {status}, {} not built; name it with --tonnage",
            path.display()
        )),
        Err(e) => Err(format!(
            "run cargo build: {e}; name the program with --tonnage"
        )),
    }
}
