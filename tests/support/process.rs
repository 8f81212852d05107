//! The `tonnage` program as a process, run as users run it.
//!
//! Owns: finding or building the program, its start on a free loopback port and a data directory, `kill -9`, a clean
//! stop, a restart on the same data. Refuses: to sleep until it is probably ready; it asks until the answer comes, up
//! to a limit.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::say;

const START_BOUND: Duration = Duration::from_secs(120);
const STOP_BOUND: Duration = Duration::from_secs(60);
/// Longer than this, a line is not on its way to the log on any machine.
const LOG_BOUND: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A running server and its data. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
    log: PathBuf,
    how: How,
    // Dropped last, when the process has ended.
    _folder: Option<tempfile::TempDir>,
}

/// The way a server is run, also after a restart.
#[derive(Debug, Clone, Default)]
struct How {
    /// The command that runs it (`strace ...`).
    wrapper: Vec<String>,
    /// Options of `serve` beside those that every test needs.
    options: Vec<String>,
}

impl Server {
    /// Starts on an empty data directory that is removed with this value.
    pub fn start() -> Result<Self, String> {
        let folder = folder()?;
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        Self::spawn(data, log, How::default(), Some(folder))
    }

    /// Starts in the same way with further options of `serve`.
    pub fn start_with(options: &[&str]) -> Result<Self, String> {
        let folder = folder()?;
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let how = How {
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..How::default()
        };
        Self::spawn(data, log, how, Some(folder))
    }

    /// Starts on `data`, which the caller keeps, under `wrapper` (`strace ...`) if it is not empty.
    pub fn start_on(data: &Path, log: &Path, wrapper: &[String]) -> Result<Self, String> {
        let how = How {
            wrapper: wrapper.to_vec(),
            ..How::default()
        };
        Self::spawn(data.to_owned(), log.to_owned(), how, None)
    }

    /// Starts in the same way with further options of `serve`.
    pub fn start_as(
        data: &Path,
        log: &Path,
        wrapper: &[String],
        options: Vec<String>,
    ) -> Result<Self, String> {
        let wrapper = wrapper.to_vec();
        let how = How { wrapper, options };
        Self::spawn(data.to_owned(), log.to_owned(), how, None)
    }

    fn spawn(
        data: PathBuf,
        log: PathBuf,
        how: How,
        folder: Option<tempfile::TempDir>,
    ) -> Result<Self, String> {
        let (child, address) = launch(&data, &log, &how)?;
        Ok(Self {
            child,
            address,
            data,
            log,
            how,
            _folder: folder,
        })
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns its output since the last start.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns its output once `said` is in it, or after a while. A line may be written a moment after the answer that
    /// it is about.
    pub fn log_with(&self, said: &str) -> String {
        let begin = Instant::now();
        loop {
            let log = self.log();
            if log.contains(said) || begin.elapsed() > LOG_BOUND {
                return log;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Returns its process id, or that of the wrapper.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `kill -9` to the server and its wrapper. It cannot write another byte.
    pub fn kill(&mut self) {
        // The group no longer exists if the process ended by itself; the wait below is what counts.
        let _ = kill_process_group(self.group(), Signal::KILL);
        drop(self.child.wait());
    }

    /// Sends SIGTERM and waits until the process has ended.
    pub fn stop(&mut self) -> Result<ExitStatus, String> {
        let pid = self.server_pid()?;
        kill_process(pid, Signal::TERM).map_err(|e| format!("send SIGTERM to {pid:?}: {e}"))?;
        self.ended()
    }

    /// Waits until the process has ended, by itself or because of a signal.
    pub fn ended(&mut self) -> Result<ExitStatus, String> {
        let begin = Instant::now();
        while begin.elapsed() < STOP_BOUND {
            if let Some(status) = self.child.try_wait().map_err(|e| format!("wait: {e}"))? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        self.kill();
        Err(format!(
            "the server did not end within {STOP_BOUND:?}:\n{}",
            self.log()
        ))
    }

    /// Starts again on the same data, after [`kill`](Self::kill) or [`stop`](Self::stop).
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        (self.child, self.address) = launch(&self.data, &self.log, &self.how)?;
        Ok(())
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Returns the process id of the server itself: the only child of its wrapper, or the wrapper if that became the
    /// program (`prlimit`).
    fn server_pid(&self) -> Result<Pid, String> {
        let own = self.child.id();
        if self.how.wrapper.is_empty() {
            return Ok(self.group());
        }
        let path = format!("/proc/{own}/task/{own}/children");
        let children = fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
        let first = children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        Ok(first
            .and_then(Pid::from_raw)
            .unwrap_or_else(|| self.group()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Creates a temporary directory on the disk on which cargo builds; `/tmp` may be in memory, where syncs do nothing.
pub fn folder() -> Result<tempfile::TempDir, String> {
    let parent = target_dir()?.join("test-data");
    fs::create_dir_all(&parent).map_err(|e| format!("create {}: {e}", parent.display()))?;
    tempfile::Builder::new()
        .prefix("t")
        .tempdir_in(&parent)
        .map_err(|e| format!("create a folder in {}: {e}", parent.display()))
}

/// Returns the bytes that a program without privileges may still write on the file system of `path`.
pub fn free_bytes(path: &Path) -> Result<u64, String> {
    let stat = rustix::fs::statvfs(path).map_err(|e| format!("statvfs {}: {e}", path.display()))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Returns the program under test, found once for each test process: `TONNAGE_TEST_BINARY`, else the output of `cargo
/// build --release -p tonnage`. Cargo's own lock makes several test processes build it once.
pub fn program() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let path = find_program()?;
        say::print_line(&format!("program under test: {}", path.display()));
        Ok(path)
    });
    found.as_deref().map_err(Clone::clone)
}

fn find_program() -> Result<PathBuf, String> {
    let Some(named) = std::env::var_os("TONNAGE_TEST_BINARY") else {
        return build();
    };
    let path = PathBuf::from(named);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "TONNAGE_TEST_BINARY names {}, which is not a file",
        path.display()
    ))
}

/// Builds that one package, so that no feature that only tests enable is unified into it. It is always built, because
/// an older program would test older code.
fn build() -> Result<PathBuf, String> {
    let target = target_dir()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "tonnage"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("run cargo build: {e}"))?;
    if output.status.success() {
        return Ok(target.join("release/tonnage"));
    }
    Err(format!(
        "build the program under test (TONNAGE_TEST_BINARY names another one): {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Returns the target directory; this program is `target/<profile>/deps/<name>` in it.
fn target_dir() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("find the own program: {e}"))?;
    let deps = own.parent().filter(|parent| parent.ends_with("deps"));
    let target = deps.and_then(Path::parent).and_then(Path::parent);
    target
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not in a target folder", own.display()))
}

/// Starts the program and waits until it answers. If another process took the port meanwhile, it tries again.
fn launch(data: &Path, log: &Path, how: &How) -> Result<(Child, SocketAddr), String> {
    let mut last = String::new();
    for _ in 0..3 {
        let address = free_address()?;
        let mut child = spawn_process(data, log, how, address)?;
        match wait_ready(&mut child, address) {
            Ok(()) => return Ok((child, address)),
            Err(why) => {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                drop(child.wait());
                let said = fs::read_to_string(log).unwrap_or_default();
                last = format!("start the server on {}: {why}\n{said}", data.display());
                if !said.to_lowercase().contains("address already in use") {
                    return Err(last);
                }
            }
        }
    }
    Err(last)
}

fn spawn_process(data: &Path, log: &Path, how: &How, address: SocketAddr) -> Result<Child, String> {
    let out = File::create(log).map_err(|e| format!("create {}: {e}", log.display()))?;
    let err = out
        .try_clone()
        .map_err(|e| format!("share {}: {e}", log.display()))?;
    let program = program()?;
    let mut command = match how.wrapper.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    };
    command
        .arg("serve")
        .arg("--data")
        .arg(data)
        .args(["--listen", &address.to_string()])
        // The admin listener is off: servers of several tests would compete for its fixed port.
        .args(["--admin-listen", "off"])
        .args(&how.options);
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    command
        .spawn()
        .map_err(|e| format!("run {}: {e}", program.display()))
}

fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("find a port: {e}"))?;
    listener
        .local_addr()
        .map_err(|e| format!("find a port: {e}"))
}

/// Requests `/v2/` until it answers. A server that asks for credentials or for TLS says so.
fn wait_ready(child: &mut Child, address: SocketAddr) -> Result<(), String> {
    let begin = Instant::now();
    let mut last = String::from("no attempt was made");
    while begin.elapsed() < START_BOUND {
        if let Some(status) = child.try_wait().map_err(|e| format!("wait: {e}"))? {
            return Err(format!("the server ended with {status}"));
        }
        match ask_v2(address) {
            Ok(status)
                if [" 200 ", " 401 ", " 400 "]
                    .iter()
                    .any(|ready| status.contains(ready)) =>
            {
                return Ok(());
            }
            Ok(status) => last = format!("GET /v2/ answered {status}"),
            Err(e) => last = e.to_string(),
        }
        std::thread::sleep(POLL);
    }
    Err(format!("not ready after {START_BOUND:?}: {last}"))
}

/// Returns the status line of `GET /v2/`.
pub fn ask_v2(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(
        format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
