//! Runs a server as a process: starts it, waits until it answers, reads its CPU time and memory, stops it.
//!
//! Owns: [`Process`]. Its children count as part of it, and end with it. Refuses: how a server is configured.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const START_BOUND: Duration = Duration::from_secs(120);
const STOP_BOUND: Duration = Duration::from_secs(60);
/// The unit in which the kernel reports CPU time; the same on every supported architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`, whose output goes to the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, String> {
        let file = File::create(log).map_err(|e| format!("create {}: {e}", log.display()))?;
        let err = file
            .try_clone()
            .map_err(|e| format!("share {}: {e}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(err);
        let child = command
            .spawn()
            .map_err(|e| format!("run {}: {e}", command.get_program().display()))?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
        })
    }

    /// Waits until `ready`, or fails with the log.
    pub fn wait_until(&mut self, ready: impl Fn() -> bool) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START_BOUND {
            if ready() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.error_with_log(&format!("ended with {status}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(self.error_with_log("was not ready in time"))
    }

    fn error_with_log(&self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        format!("{} {what}:\n{log}", self.name)
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its process id and those of its children.
    pub fn pids(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }

    /// Returns the CPU seconds used so far, user and system, of all threads.
    pub fn cpu_seconds(&self) -> Result<f64, String> {
        self.pids().into_iter().map(cpu_seconds).sum()
    }

    /// Returns the bytes that were read from the drive so far.
    pub fn drive_bytes(&self) -> u64 {
        let of = |pid| {
            let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
            field(&io, "read_bytes:")
        };
        self.pids().into_iter().filter_map(of).sum()
    }

    /// Asks it to stop, and waits for its end. Returns the time that took.
    pub fn stop(mut self) -> Result<Duration, String> {
        let begin = Instant::now();
        signal(self.pid(), Signal::TERM);
        while begin.elapsed() < STOP_BOUND {
            match self.child.try_wait() {
                Ok(Some(_)) => return Ok(begin.elapsed()),
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => return Err(format!("wait for {}: {e}", self.name)),
            }
        }
        Err(self.error_with_log("did not stop in time"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.pids()
                .into_iter()
                .for_each(|pid| signal(pid, Signal::KILL));
        }
        drop(self.child.wait());
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The process may have ended already.
        let _ = kill_process(pid, signal);
    }
}

/// Returns the CPU seconds of a process. `stat` counts whole ticks, `schedstat` nanoseconds but only of threads that
/// still run; neither counts too much, so the larger one is right.
fn cpu_seconds(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
    // The program's name may contain spaces, so fields are counted after it. utime and stime are the 14th and 15th
    // field.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok());
    let (Some(user), Some(system)) = (ticks(), ticks()) else {
        return Err(format!("{path} has an unknown form"));
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let precise: f64 = threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum();
    Ok(((user + system) / TICKS_PER_SECOND).max(precise / 1e9))
}

/// Returns `RssAnon` of a process in KiB: what it allocated, without mapped files.
pub fn anonymous_kib(pid: u32) -> Option<u64> {
    status_kib(pid, "RssAnon:")
}

/// Returns a field of `/proc/PID/status` that is in KiB; `name` ends with its colon.
pub fn status_kib(pid: u32, name: &str) -> Option<u64> {
    field(
        &fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        name,
    )
}

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Returns a loopback address that is free.
pub fn free_address() -> Result<SocketAddr, String> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.map_err(|e| format!("find a port: {e}"))
}

/// Returns whether a registry answers `GET /v2/` without TLS.
pub fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
