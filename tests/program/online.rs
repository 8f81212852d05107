//! The operator's socket of a running server, from its creation to its removal.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::serving::{Serving, run, send_over, tonnage};

fn stats(data: &Path) -> Value {
    let (code, stdout, stderr) = run(tonnage(&["stats", "--json", "--data"]).arg(data));
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Guards: `stats` asks the server while it has the store open, and reads a closed store, with the same fields and
/// content. Only its owner can use the socket, which is removed with the server.
#[test]
fn stats_are_the_same_online_and_offline() {
    let directory = tempfile::tempdir().unwrap();
    // Longer than the address of a socket may be.
    let data = directory.path().join("d".repeat(120));
    let socket = data.join("admin.sock");
    let server = Serving::start(&data, &[]);
    let smoke = ["smoke", &server.url, "--size", "1 MiB", "--keep"];
    assert_eq!(run(&mut tonnage(&smoke)).0, 0);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let online = stats(&data);
    assert_eq!(
        (&online["version"], &online["open"]),
        (&1.into(), &true.into())
    );
    assert!(online["blobs"].as_u64().unwrap() > 3, "{online}");
    let (code, stdout, stderr) = run(tonnage(&["stats", "--server"]).arg(&socket));
    assert!(
        code == 0 && stdout.contains("a server runs"),
        "{stdout}{stderr}"
    );
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    assert!(!socket.exists(), "the socket outlived its server");
    let offline = stats(&data);
    assert_eq!(offline["open"], false);
    let fields = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(fields(&online), fields(&offline));
    // The uploads are left out: one without bytes ends when the server stops.
    for field in ["lsn", "repositories", "blobs", "blob_bytes", "segments"] {
        assert_eq!(online[field], offline[field], "{field}");
    }
}

/// Guards: the form of admin operations on the socket: an answer names its operation, a missing name is a 404 that
/// names it, an invalid operation is 400, and a body too large is 413. No other path or method exists.
#[test]
fn the_socket_answers_operations_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let _server = Serving::start(directory.path(), &[]);
    let socket = directory.path().join("admin.sock");
    let send = |line: &str, body: &str| {
        let stream = UnixStream::connect(&socket).unwrap();
        let head = format!("{line} HTTP/1.1\r\nHost: tonnage");
        let (status, body) = send_over(stream, &head, "application/json", body.as_bytes());
        (status, String::from_utf8(body).unwrap())
    };
    let post = |body: &str| send("POST /v1/admin", body);
    let (status, answer) = post(r#"{"operation":"list_repositories"}"#);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let expected = json!({"operation": "list_repositories", "repositories": [], "more": false});
    assert_eq!((status, answer), (200, expected));
    let (status, answer) = post(r#"{"operation":"list_tags","repository":"a"}"#);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, answer),
        (404, json!({"repository": "a", "tags": []}))
    );
    let (status, answer) = post(r#"{"operation":"format_disk"}"#);
    assert!(
        status == 400 && answer.contains("get_stats"),
        "{status} {answer}"
    );
    // A deletion must say whether it is a dry run.
    let (status, answer) = post(r#"{"operation":"delete_repository","repository":"a"}"#);
    assert!(
        status == 400 && answer.contains("dry_run"),
        "{status} {answer}"
    );
    assert_eq!(post(&" ".repeat((256 << 10) + 1)).0, 413);
    assert_eq!(send("GET /v1/admin", "").0, 405);
    assert_eq!(send("POST /v1/stats", "{}").0, 404);
}

/// Guards: the socket of a killed server does not count as a server: offline commands read the store, and the next
/// server replaces the socket.
#[test]
fn the_socket_of_a_killed_server_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::start(directory.path(), &[]);
    server.signal("-KILL");
    assert_eq!(server.end().0, None);
    assert!(directory.path().join("admin.sock").exists());
    assert_eq!(stats(directory.path())["open"], false);
    let _server = Serving::start(directory.path(), &[]);
    assert_eq!(stats(directory.path())["open"], true);
}

/// Guards: a server named on the command line must answer. An invalid path of a socket is a usage error.
#[test]
fn a_named_server_must_answer() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let (code, _, stderr) = run(tonnage(&["stats", "--server"]).arg(&socket));
    assert!(
        code == 4 && stderr.contains("no server is running"),
        "{code} {stderr}"
    );
    let (code, _, stderr) = run(&mut tonnage(&[
        "stats",
        "--server",
        "http://127.0.0.1:5001",
    ]));
    assert!(
        code == 2 && stderr.contains("admin.sock"),
        "{code} {stderr}"
    );
}

/// Guards: SIGTERM while the store is being opened stops the server with 0.
#[test]
fn a_signal_while_opening_ends_with_zero() {
    let directory = tempfile::tempdir().unwrap();
    // The server retries the lock, which is held here, for a while. If a signal comes after that, the attempt is
    // repeated.
    let lock = std::fs::File::open(directory.path()).unwrap();
    lock.lock().unwrap();
    let (code, stderr) = loop {
        let ended = signalled_while_opening(directory.path());
        if ended.0 != Some(5) {
            break ended;
        }
    };
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("while the store was being opened"),
        "{stderr}"
    );
}

/// Starts a server and stops it once it listens, which is before it opens its store.
fn signalled_while_opening(data: &Path) -> (Option<i32>, String) {
    // The port was free a moment ago; the tests' servers use others.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut child = tonnage(&["serve", "--admin-listen", "off", "--listen"])
        .arg(address.to_string())
        .arg("--data")
        .arg(data)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // Signals are handled before the address is bound.
    while TcpStream::connect(address).is_err() {
        if let Some(ended) = child.try_wait().expect("a child") {
            return (ended.code(), String::new());
        }
        std::thread::yield_now();
    }
    let kill = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status();
    assert!(
        kill.expect("kill runs").success(),
        "the signal was not sent"
    );
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

/// Guards: a reader of standard error that stops reading, like a pager, does not stop the server. Each collection that
/// is started logs a line; a pipe has room for 64 KiB.
#[test]
fn log_lines_that_nobody_reads_stop_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::start(directory.path(), &["--collection-manual"]);
    let socket = directory.path().join("admin.sock");
    for _ in 0..1000 {
        let stream = UnixStream::connect(&socket).unwrap();
        let body = br#"{"operation":"start_collection","dry_run":false,"full":false}"#;
        let head = "POST /v1/admin HTTP/1.1\r\nHost: tonnage";
        assert_eq!(send_over(stream, head, "application/json", body).0, 200);
    }
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    // What was queued meanwhile is there.
    assert!(log.len() > 64 << 10 && log.contains("the store is closed"));
}
