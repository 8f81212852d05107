//! One run of an external program: its arguments, its time limit, and its output if it fails.
//!
//! Owns: [`Call`], [`Running`]. Refuses: a program that never ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CALL_BOUND: Duration = Duration::from_secs(1200);
const START_BOUND: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// One run of a program.
#[derive(Debug)]
pub struct Call {
    command: Command,
    said: PathBuf,
    line: String,
}

impl Call {
    /// Creates a run of `command`, whose output goes to files that begin with `said`.
    pub fn new(command: Command, said: PathBuf) -> Self {
        let line = Path::new(command.get_program()).display().to_string();
        Self {
            command,
            said,
            line,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Uses the bytes of a file as stdin.
    pub fn input(mut self, path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?;
        self.command.stdin(file);
        Ok(self)
    }

    /// Starts the program, which is killed when the returned value is dropped.
    pub fn spawn(mut self) -> Result<Running, String> {
        let said = self.said.with_extension("err");
        self.command.stdout(Stdio::null()).stderr(create(&said)?);
        let child = self
            .command
            .spawn()
            .map_err(|e| format!("run {}: {e}", self.line))?;
        Ok(Running {
            child,
            said,
            line: self.line,
        })
    }

    /// Runs to the end and returns stdout. Any exit code but 0 is an error with the output.
    pub fn run(mut self) -> Result<String, String> {
        let (out, err) = (
            self.said.with_extension("out"),
            self.said.with_extension("err"),
        );
        self.command.stdout(create(&out)?).stderr(create(&err)?);
        let mut child = self
            .command
            .spawn()
            .map_err(|e| format!("run {}: {e}", self.line))?;
        let status = wait(&mut child, &self.line)?;
        let said = String::from_utf8_lossy(&fs::read(&out).unwrap_or_default()).into_owned();
        if status {
            return Ok(said);
        }
        let stderr = fs::read(&err).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        let tail: Vec<&str> = stderr.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(format!("`{}` failed: {said}{}", self.line, tail.join("\n")))
    }

    /// Runs and passes stdout to `read` as it arrives.
    pub fn stream<T>(
        mut self,
        read: impl FnOnce(&mut dyn Read) -> Result<T, String>,
    ) -> Result<T, String> {
        let err = self.said.with_extension("err");
        self.command.stdout(Stdio::piped()).stderr(create(&err)?);
        let mut child = self
            .command
            .spawn()
            .map_err(|e| format!("run {}: {e}", self.line))?;
        let mut stdout = child.stdout.take().ok_or("no stdout")?;
        let seen = read(&mut stdout);
        drop(stdout);
        let status = wait(&mut child, &self.line)?;
        let stderr = fs::read_to_string(&err).unwrap_or_default();
        match (seen, status) {
            (Ok(value), true) => Ok(value),
            (Err(why), _) => Err(format!("`{}`: {why} {stderr}", self.line)),
            (Ok(_), false) => Err(format!("`{}` failed: {stderr}", self.line)),
        }
    }
}

/// A program that runs until this value is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    said: PathBuf,
    line: String,
}

impl Running {
    /// Repeats `ask` until it returns `Ok`, the program has ended, or the time is up.
    pub fn until(&mut self, ask: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let Err(why) = ask() else { return Ok(()) };
            let ended = self.child.try_wait().map_err(|e| format!("wait: {e}"))?;
            if ended.is_some() || begin.elapsed() > START_BOUND {
                let said = fs::read_to_string(&self.said).unwrap_or_default();
                return Err(format!("`{}` {ended:?}: {why}: {said}", self.line));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|e| format!("create {}: {e}", path.display()))
}

fn wait(child: &mut Child, line: &str) -> Result<bool, String> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child
            .try_wait()
            .map_err(|e| format!("wait for {line}: {e}"))?
        {
            return Ok(status.success());
        }
        if begin.elapsed() > CALL_BOUND {
            drop(child.kill());
            drop(child.wait());
            return Err(format!("`{line}` did not end within {CALL_BOUND:?}"));
        }
        std::thread::sleep(POLL);
    }
}
