//! File systems that belong to a test and are unmounted with it.
//!
//! Owns: [`Namespace`], a mount namespace that other processes do not see; [`SmallDisk`], a file system in one;
//! [`or_skip`], a message or a failure where mounting is not permitted. Refuses: mounts that outlive the process,
//! however it ends: the namespace belongs to a shell that ends with its input.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::process;
use crate::say;

/// Returns what was mounted, or prints a message and returns `None` where that is not permitted. With
/// `TONNAGE_TEST_MOUNT=require` that is a failure.
pub fn or_skip<T>(mounted: Result<T, String>, what: &str) -> Option<T> {
    match mounted {
        Ok(mounted) => Some(mounted),
        Err(why) if say::required("TONNAGE_TEST_MOUNT") => {
            panic!("{what}: no file system could be mounted: {why}")
        }
        Err(why) => {
            say::skipped(what, &format!("no file system could be mounted: {why}"));
            None
        }
    }
}

/// A directory in the mount namespace of a shell, which ends with this value. Other processes reach it through the
/// shell's root.
#[derive(Debug)]
pub struct Namespace {
    shell: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Namespace {
    /// Creates a namespace in which nothing is mounted yet. `stderr` is used by the shell and all that it runs.
    pub fn new(stderr: Stdio) -> Result<Self, String> {
        // A short path, because the address of a socket in it has at most 107 bytes.
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let mut shell = command
            .args(["--mount", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("run unshare: {e}"))?;
        let (commands, answers) = (shell.stdin.take(), shell.stdout.take());
        let (Some(commands), Some(answers)) = (commands, answers) else {
            unreachable!("both are piped");
        };
        let mut namespace = Self {
            shell,
            commands,
            answers: BufReader::new(answers),
            path: PathBuf::new(),
            folder,
        };
        // The answer shows that the namespace exists.
        namespace.run("true")?;
        let root = PathBuf::from(format!("/proc/{}/root", namespace.shell.id()));
        let inside = namespace.inside().strip_prefix("/");
        namespace.path = root.join(inside.map_err(|e| e.to_string())?);
        Ok(namespace)
    }

    /// Runs `command` with [`inside`](Self::inside) as its last argument.
    pub fn run(&mut self, command: &str) -> Result<(), String> {
        let line = format!(
            "{{ {command} '{}'; }} >/dev/null; echo $?\n",
            self.inside().display()
        );
        let mut code = String::new();
        let asked = self.commands.write_all(line.as_bytes());
        asked
            .and_then(|()| self.answers.read_line(&mut code))
            .map_err(|e| format!("{command}: {e}"))?;
        match code.trim() {
            "0" => Ok(()),
            "" => Err("a mount namespace was refused".to_owned()),
            code => Err(format!("`{command}` ended with {code}")),
        }
    }

    /// Returns the path of the mount point inside the namespace.
    pub fn inside(&self) -> &Path {
        self.folder.path()
    }

    /// Returns its path for other processes.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The shell ends with its input anyway.
        drop(self.shell.kill());
        drop(self.shell.wait());
    }
}

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// In memory.
    Tmpfs,
    /// XFS in a sparse file on a loop device.
    Xfs,
    /// Btrfs in a sparse file on a loop device.
    Btrfs,
}

/// A file system of a chosen size.
#[derive(Debug)]
pub struct SmallDisk {
    namespace: Namespace,
    // Dropped last, when nothing is mounted from it any more.
    _image: Option<tempfile::TempDir>,
}

impl SmallDisk {
    /// Mounts a tmpfs of `mebibytes`; see [`or_skip`].
    pub fn mount(mebibytes: u64, what: &str) -> Option<Self> {
        or_skip(Self::try_mount(FileSystem::Tmpfs, mebibytes), what)
    }

    /// Mounts a file system of `kind` and `mebibytes`. XFS needs at least 300.
    pub fn try_mount(kind: FileSystem, mebibytes: u64) -> Result<Self, String> {
        let mut namespace = Namespace::new(Stdio::null())?;
        let make = match kind {
            FileSystem::Tmpfs => {
                let options = format!("size={mebibytes}m,mode=0700");
                namespace.run(&format!("mount -t tmpfs -o {options} tonnage-test"))?;
                None
            }
            FileSystem::Xfs => Some("mkfs.xfs -q"),
            FileSystem::Btrfs => Some("mkfs.btrfs -q"),
        };
        let image = match make {
            None => None,
            Some(make) => {
                let folder = process::folder()?;
                let image = folder.path().join("image");
                let shown = image.display();
                std::fs::File::create_new(&image)
                    .and_then(|file| file.set_len(mebibytes << 20))
                    .map_err(|e| format!("create {shown}: {e}"))?;
                // `true` takes the mount point, which is the last argument.
                namespace.run(&format!("{make} '{shown}' && true"))?;
                namespace.run(&format!("mount -o loop '{shown}'"))?;
                Some(folder)
            }
        };
        let path = namespace.path();
        std::fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self {
            namespace,
            _image: image,
        })
    }

    /// Makes the file system read-only.
    pub fn make_read_only(&mut self) {
        let made = self.namespace.run("mount -o remount,bind,ro");
        made.expect("remounted");
    }

    /// Returns the path of the mount point.
    pub fn path(&self) -> &Path {
        self.namespace.path()
    }

    /// Returns the free bytes.
    pub fn free(&self) -> u64 {
        process::free_bytes(self.path()).expect("statvfs")
    }
}
