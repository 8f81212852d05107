//! Runs of the program, and a server under test.
//!
//! Owns: [`Serving`], and how the program is run. Refuses: the environment variables of the user who runs the tests.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn tonnage(arguments: &[&str]) -> Command {
    let program = tonnage_tests::process::program().expect("the program that ships");
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TONNAGE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("an exit code, not a signal");
    (code, text(output.stdout), text(output.stderr))
}

/// Repeats a check until it holds; it fails if that takes longer than any machine needs.
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it never holds");
    }
}

/// Runs a program that reads `input` from standard input.
pub(crate) fn run_with(command: &mut Command, input: &[u8]) -> (i32, String, String) {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // A program that needs no more of it closes it.
    drop(child.stdin.take().expect("piped").write_all(input));
    let output = child.wait_with_output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("an exit code, not a signal");
    (code, text(output.stdout), text(output.stderr))
}

/// A server on a free port; killed when dropped.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) stderr: BufReader<ChildStderr>,
    pub(crate) banner: String,
    pub(crate) url: String,
}

impl Serving {
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = tonnage(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"]);
        Self::of(command.arg("--data").arg(data).args(arguments))
    }

    /// Starts `tonnage serve` with all its options.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (mut banner, mut url) = (String::new(), None);
        // The last line of the banner is the one for podman.
        while !banner.contains("podman pull") {
            let mut line = String::new();
            assert!(
                stderr.read_line(&mut line).expect("UTF-8") > 0,
                "the server ended:\n{banner}"
            );
            if let Some((_, rest)) = line.split_once("registry  ") {
                url = Some(rest.trim().to_owned());
            }
            banner.push_str(&line);
        }
        Self {
            child,
            stderr,
            banner,
            url: url.expect("the banner names the address"),
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([name, &pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the end. Returns the exit code and the rest of the output.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("UTF-8");
        (self.child.wait().expect("a child").code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

/// Sends a GET to a server. Returns status and body.
pub(crate) fn get(url: &str, path: &str) -> (u16, Vec<u8>) {
    send(url, &format!("GET {path}"), "text/plain", b"")
}

/// Sends a request. Returns status and body.
pub(crate) fn send(url: &str, line: &str, media_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let address = url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).expect("a connection");
    send_over(
        stream,
        &format!("{line} HTTP/1.1\r\nHost: {address}"),
        media_type,
        body,
    )
}

/// Sends a request over any stream, whose head begins with `head`. Returns status and body.
pub(crate) fn send_over(
    mut stream: impl Read + Write,
    head: &str,
    media_type: &str,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let request = format!(
        "{head}\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // In one write, because a server that does not read the body may end the connection after the head.
    let request = [request.as_bytes(), body].concat();
    stream.write_all(&request).expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("UTF-8");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), answer.split_off(end + 4))
}
