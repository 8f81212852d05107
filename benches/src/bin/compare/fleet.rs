//! The servers of one scenario, on new folders, and what is stored in them.
//!
//! Owns: [`Fleet`], [`Server`], [`measure`](Server::measure): one load beside the CPU time and the memory of the
//! server. The folders are removed with the fleet, after the servers have ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tonnage_benches::process::{Process, status_kib};

use crate::content::Content;
use crate::limits::{self, Limit};
use crate::load::http::Connection;
use crate::load::job::{Blob, Endpoint, Job, Outcome, Until, Work};
use crate::load::{self, put_manifest};
use crate::machine;
use crate::peers::Program;
use crate::report::{Role, UNDER_TEST, Values};
use crate::tls::Certificate;

const SAMPLE_EVERY: Duration = Duration::from_millis(20);
const MIB: f64 = (1 << 20) as f64;

/// A server that runs.
pub struct Server {
    pub name: String,
    pub role: Role,
    pub endpoint: Endpoint,
    pub admin: Option<SocketAddr>,
    pub process: Process,
    /// The folder that holds what it stores.
    pub folder: PathBuf,
}

/// What a fleet consists of.
#[derive(Debug, Clone)]
pub enum Member {
    Registry(Program),
    Limit(Limit),
}

impl Member {
    pub fn name(&self) -> &str {
        match self {
            Self::Registry(program) => &program.name,
            Self::Limit(limit) => limit.name(),
        }
    }
}

/// Servers, and the folder that the limits serve.
pub struct Fleet {
    // Dropped first, so that the servers end before their folder goes.
    pub servers: Vec<Server>,
    pub www: PathBuf,
    pub certificate: Option<Certificate>,
    folder: TempDir,
}

impl Fleet {
    /// Starts a fleet in a new folder in `parent`. A limit or a peer that cannot be started is left out; the reasons
    /// are added to `missing`.
    pub fn start(
        parent: &Path,
        members: &[Member],
        tls: bool,
        missing: &mut Vec<String>,
    ) -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("compare")
            .tempdir_in(parent);
        let folder = folder.map_err(|e| format!("make a folder in {}: {e}", parent.display()))?;
        let www = folder.path().join("www");
        make_dir(&www)?;
        let certificate = tls.then(|| Certificate::make(folder.path())).transpose()?;
        let mut fleet = Self {
            servers: Vec::new(),
            www,
            certificate,
            folder,
        };
        for member in members {
            let started = match member {
                Member::Registry(program) => fleet.registry(program),
                Member::Limit(limit) => fleet.limit(*limit),
            };
            match started {
                Ok(server) => fleet.servers.push(server),
                Err(why) if member.name() == UNDER_TEST => return Err(why),
                Err(why) => missing.push(format!("{}: {why}", member.name())),
            }
        }
        Ok(fleet)
    }

    fn registry(&self, program: &Program) -> Result<Server, String> {
        let folder = self.folder.path().join(&program.name);
        make_dir(&folder)?;
        let started = program.start(&folder, self.certificate.as_ref())?;
        Ok(Server {
            name: program.name.clone(),
            role: if program.name == UNDER_TEST {
                Role::Tonnage
            } else {
                Role::Peer
            },
            endpoint: self.endpoint(started.address),
            admin: started.admin,
            process: started.process,
            folder,
        })
    }

    /// Restarts those of `members` that are registries and run, on what they have stored.
    pub fn restart_registries(&mut self, members: &[Member]) -> Result<(), String> {
        for member in members {
            let at = self.servers.iter().position(|of| of.name == member.name());
            if let (Member::Registry(program), Some(at)) = (member, at) {
                drop(self.servers.remove(at));
                let server = self.registry(program)?;
                self.servers.insert(at, server);
            }
        }
        Ok(())
    }

    fn limit(&self, limit: Limit) -> Result<Server, String> {
        let (folder, tls) = (self.folder.path(), self.certificate.as_ref());
        let (address, process) = match limit {
            Limit::Nginx => limits::nginx::start(folder, &self.www, tls)?,
            _ => limits::start_own(limit, folder, &self.www)?,
        };
        Ok(Server {
            name: limit.name().into(),
            role: Role::Limit,
            endpoint: self.endpoint(address),
            admin: None,
            process,
            folder: self.www.clone(),
        })
    }

    fn endpoint(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            ca: self.certificate.as_ref().map(|of| of.certificate.clone()),
        }
    }

    /// Stores blobs of these contents everywhere, and pulls each, so that it is resident. Not timed. With `files`,
    /// each is a file for the limits, too.
    pub fn store(&self, contents: &[Content], files: bool) -> Result<Vec<Blob>, String> {
        let blobs: Vec<Blob> = contents
            .iter()
            .map(|content| Blob {
                content: *content,
                digest: Some(content.digest()),
            })
            .collect();
        if files {
            for blob in &blobs {
                let path = load::blob_path(blob.digest.as_deref().unwrap_or_default());
                self.write_www(&path, |file| {
                    blob.content.each_piece(|piece| file.write_all(piece))
                })?;
            }
        }
        for server in &self.servers {
            if server.role != Role::Limit {
                server.run(
                    1,
                    Until::Count(blobs.len() as u64),
                    Work::Push {
                        blobs: blobs.clone(),
                    },
                )?;
            }
            server.check(&blobs)?;
        }
        Ok(blobs)
    }

    /// Stores a manifest everywhere.
    pub fn store_manifest(&self, path: &str, body: &str) -> Result<(), String> {
        self.write_www(path, |file| file.write_all(body.as_bytes()))?;
        for server in self
            .servers
            .iter()
            .filter(|server| server.role != Role::Limit)
        {
            put_manifest(&mut Connection::open(&server.endpoint)?, path, body)?;
        }
        Ok(())
    }

    fn write_www(
        &self,
        path: &str,
        write: impl Fn(&mut File) -> std::io::Result<()>,
    ) -> Result<(), String> {
        let path = self.www.join(path.trim_start_matches('/'));
        make_dir(path.parent().unwrap_or(&self.www))?;
        let written = File::create(&path).and_then(|mut file| write(&mut file));
        written.map_err(|e| format!("write {}: {e}", path.display()))
    }
}

fn make_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("create {}: {e}", path.display()))
}

impl Server {
    /// Runs a load that is not measured.
    pub fn run(&self, connections: usize, until: Until, work: Work) -> Result<Outcome, String> {
        load::run(&self.job(connections, until, work))
            .map_err(|why| format!("{}: {why}", self.name))
    }

    pub fn job(&self, connections: usize, until: Until, work: Work) -> Job {
        Job {
            endpoint: self.endpoint.clone(),
            connections,
            until,
            work,
        }
    }

    /// Pulls every blob once, and compares it.
    pub fn check(&self, blobs: &[Blob]) -> Result<(), String> {
        let work = Work::Pull {
            blobs: blobs.to_vec(),
        };
        self.run(1, Until::Count(blobs.len() as u64), work)
            .map(drop)
    }

    /// Drops what the server stored from the page cache.
    pub fn evict(&self) -> Result<(), String> {
        machine::evict(&self.folder)
    }

    /// Runs a load, and returns its figures with the CPU time and the peak memory of the server meanwhile.
    pub fn measure(
        &self,
        connections: usize,
        until: Until,
        work: Work,
        per: Per,
    ) -> Result<Values, String> {
        let job = self.job(connections, until, work);
        self.beside(per, || load::run(&job))
            .map_err(|why| format!("{}: {why}", self.name))
    }

    /// The same for a load that `work` runs.
    pub fn beside(
        &self,
        per: Per,
        work: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<Values, String> {
        let done = AtomicBool::new(false);
        let (cpu, drive) = (self.process.cpu_seconds()?, self.process.drive_bytes());
        let (outcome, peak) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| self.peak_memory(&done));
            let outcome = work();
            done.store(true, Ordering::Relaxed);
            (outcome, sampler.join().unwrap_or_default())
        });
        let (outcome, cpu) = (outcome?, self.process.cpu_seconds()? - cpu);
        let drive = (self.process.drive_bytes() - drive) as f64;
        let mut values = figures(&outcome, cpu, per);
        values.insert("peak_mib".into(), peak);
        values.insert(
            "drive_share".into(),
            drive / (outcome.bytes as f64).max(1.0),
        );
        Ok(values)
    }

    /// Returns the highest sum of RssAnon and RssShmem until `done`, in MiB.
    fn peak_memory(&self, done: &AtomicBool) -> f64 {
        let mut peak = 0;
        while !done.load(Ordering::Relaxed) {
            let of = |pid| {
                let kib = |name| status_kib(pid, name).unwrap_or_default();
                kib("RssAnon:") + kib("RssShmem:")
            };
            peak = peak.max(self.process.pids().into_iter().map(of).sum::<u64>());
            std::thread::sleep(SAMPLE_EVERY);
        }
        peak as f64 / 1024.0
    }
}

/// What a rate and a CPU time are given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Bytes,
    Requests,
}

impl Per {
    pub fn rate_unit(self) -> &'static str {
        if self == Self::Bytes { "MiB/s" } else { "1/s" }
    }

    pub fn cpu_unit(self) -> &'static str {
        if self == Self::Bytes {
            "s/GiB"
        } else {
            "s/1,000"
        }
    }
}

fn figures(outcome: &Outcome, cpu: f64, per: Per) -> Values {
    let amount = match per {
        Per::Bytes => outcome.bytes as f64 / MIB,
        Per::Requests => outcome.units as f64,
    };
    let unit = if per == Per::Bytes { 1024.0 } else { 1000.0 };
    let mut values: Values = BTreeMap::from([
        ("rate".into(), amount / outcome.seconds),
        ("cpu".into(), cpu / amount * unit),
        ("p50_ms".into(), outcome.p50_ms),
        ("p99_ms".into(), outcome.p99_ms),
    ]);
    let further = [
        ("tail_ms", outcome.tail_ms),
        ("unread_p50_kib", outcome.unread_p50_kib),
        ("unread_max_kib", outcome.unread_max_kib),
    ];
    values.extend(
        further
            .into_iter()
            .filter_map(|(name, value)| Some((name.into(), value?))),
    );
    values
}
