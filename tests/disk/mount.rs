//! A small file system of our own, which goes with the test.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tonnage_tests::say;

/// A tmpfs in the mount namespace of a shell, which ends with this value; reached from outside through the shell's root.
#[derive(Debug)]
pub struct SmallDisk {
    shell: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    inside: PathBuf,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of `mebibytes`. `None`, said aloud, where that is not allowed, unless `TONNAGE_TEST_MOUNT=require`.
    pub fn mount(mebibytes: u64, what: &str) -> Option<Self> {
        match Self::try_mount(mebibytes) {
            Ok(disk) => Some(disk),
            Err(why) if say::required("TONNAGE_TEST_MOUNT") => {
                panic!("{what}: no file system could be mounted: {why}")
            }
            Err(why) => {
                say::skipped(what, &format!("no file system could be mounted: {why}"));
                None
            }
        }
    }

    fn try_mount(mebibytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let mut shell = command
            .args(["--mount", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("run unshare: {e}"))?;
        let (commands, answers) = (shell.stdin.take(), shell.stdout.take());
        let (Some(commands), Some(answers)) = (commands, answers) else {
            unreachable!("both are piped");
        };
        let inside = folder.path().to_owned();
        let root = PathBuf::from(format!("/proc/{}/root", shell.id()));
        let path = root.join(inside.strip_prefix("/").map_err(|e| e.to_string())?);
        let mut disk = Self {
            shell,
            commands,
            answers: BufReader::new(answers),
            inside,
            path,
            _folder: folder,
        };
        let options = format!("mount -t tmpfs -o size={mebibytes}m,mode=0700 tonnage-test");
        disk.run(&options)?;
        std::fs::read_dir(&disk.path).map_err(|e| format!("{}: {e}", disk.path.display()))?;
        Ok(disk)
    }

    /// Runs `command` with the mount point as its last argument, where the file system is.
    fn run(&mut self, command: &str) -> Result<(), String> {
        let line = format!("{command} '{}'; echo $?\n", self.inside.display());
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

    /// From now on it refuses every write.
    pub fn make_read_only(&mut self) {
        self.run("mount -o remount,ro").expect("remounted");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are free on it.
    pub fn free(&self) -> u64 {
        tonnage_tests::process::free_bytes(&self.path).expect("statvfs")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends with its input anyway.
        drop(self.shell.kill());
        drop(self.shell.wait());
    }
}
