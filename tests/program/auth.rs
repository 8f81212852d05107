//! Access control: users, rules, and what the program prints about them.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::serving::{Serving, run, send_over, tonnage};

/// A name with its password, as a header.
fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = format!("{name}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("\r\nAuthorization: Basic {encoded}")
}

/// Sends a request with these credentials. Returns the status.
fn status(server: &Serving, line: &str, credentials: &str) -> u16 {
    let address = server.url.trim_start_matches("http://");
    let stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: {address}{credentials}");
    send_over(stream, &head, "text/plain", b"").0
}

fn with_password(arguments: &[&str], data: &Path, password: &str) -> (i32, String, String) {
    let mut command = tonnage(arguments);
    command.arg("--data").arg(data).arg("--password-stdin");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    writeln!(child.stdin.take().expect("piped"), "{password}").unwrap();
    let output = child.wait_with_output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().expect("a code"),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Guards: a registry without users makes an admin whose password it prints once. Users that commands add, change and
/// remove are known to the running server at once.
#[test]
fn users_are_known_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &["--auth"]);
    let (_, rest) = server
        .banner
        .split_once("log in as admin with the password ")
        .unwrap();
    let admin = rest.split_whitespace().next().unwrap().to_owned();
    assert_eq!(status(&server, "GET /v2/", ""), 401);
    assert_eq!(status(&server, "GET /v2/", &basic("admin", "wrong")), 401);
    let post = "POST /v2/a/blobs/uploads/";
    assert_eq!(status(&server, post, &basic("admin", &admin)), 202);

    let smoke = |name: &str, password: &str| {
        let mut command = tonnage(&["smoke", &server.url, "--size", "1 MiB", "--strict"]);
        command
            .args(["--username", name])
            .env("TONNAGE_SMOKE_PASSWORD", password);
        run(&mut command)
    };
    let (code, stdout, stderr) = smoke("admin", &admin);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let (code, stdout, stderr) = smoke("admin", "wrong");
    assert!(code != 0 && stdout.contains("401"), "{stdout}{stderr}");
    let (code, _, stderr) = with_password(&["user", "add", "alice"], &data, "correct horse");
    assert_eq!(code, 0, "{stderr}");
    let alice = basic("alice", "correct horse");
    assert_eq!(status(&server, "GET /v2/", &alice), 200);
    assert_eq!(status(&server, post, &alice), 403);
    let (code, _, stderr) = with_password(&["user", "add", "alice"], &data, "another one");
    assert!(code == 2 && stderr.contains("set-password"), "{stderr}");
    let (code, _, _) = with_password(&["user", "set-password", "alice"], &data, "battery staple");
    assert_eq!(code, 0);
    assert_eq!(
        status(&server, "GET /v2/", &basic("alice", "battery staple")),
        200
    );
    // The server forgets the old one soon.
    while status(&server, "GET /v2/", &alice) != 401 {}
    let (code, stdout, _) = run(tonnage(&["user", "list", "--data"]).arg(&data));
    assert_eq!((code, &*stdout), (0, "admin  admin\nalice\n"));
    let remove = ["user", "remove", "alice", "--data"];
    assert_eq!(run(tonnage(&remove).arg(&data)).0, 0);
    assert_eq!(run(tonnage(&remove).arg(&data)).0, 9);
    while status(&server, "GET /v2/", &basic("alice", "battery staple")) != 401 {}
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    for secret in [&*admin, "horse", "staple", "wrong"] {
        assert!(!log.contains(secret), "{log}");
    }
    // The next start makes no other admin.
    let server = Serving::start(&data, &["--auth"]);
    assert!(!server.banner.contains("password"), "{}", server.banner);
    assert_eq!(status(&server, post, &basic("admin", &admin)), 202);
}

/// Guards: access rules are read again when they change, and a file that cannot be used changes nothing. `can`
/// explains a decision by the same rules. Users may be added before the first start.
#[test]
fn rules_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (
        directory.path().join("data"),
        directory.path().join("rules.toml"),
    );
    assert_eq!(
        with_password(&["user", "add", "ci"], &data, "correct horse").0,
        0
    );
    let write = |text: &str| std::fs::write(&rules, text).unwrap();
    write("[[rule]]\nrepositories = 'team/*'\npush = ['ci']\n");
    let named = rules.display().to_string();
    let options = ["--auth", "--auth-rules", &named];
    let server = Serving::start(&data, &options);
    let ci = basic("ci", "correct horse");
    let post = |repository: &str| {
        status(
            &server,
            &format!("POST /v2/{repository}/blobs/uploads/"),
            &ci,
        )
    };
    assert_eq!((post("team/a"), post("other")), (202, 403));
    let can = |repository: &str| {
        let mut command = tonnage(&["can", "ci", "push", repository, "--data"]);
        run(command.arg(&data).args(options))
    };
    let (code, stdout, _) = can("team/a");
    assert_eq!(
        (code, &*stdout),
        (0, "yes: the rule for team/* gives push to ci\n")
    );
    assert_eq!(can("other").0, 1);
    let mut unknown = tonnage(&["can", "nobody", "push", "team/a", "--data"]);
    assert_eq!(run(unknown.arg(&data).args(options)).0, 9);
    // A client certificate may have any name.
    let certificates = ["--tls", "self", "--tls-client-ca", "ca.pem"];
    assert_eq!(run(unknown.args(certificates)).0, 1);
    write("[[rule]]\nrepositories = 'team/*'\npsh = ['ci']\n");
    assert_eq!(can("team/a").0, 2);
    write("[[rule]]\nrepositories = 'other'\npush = ['ci']\n");
    while post("other") != 202 {}
    assert_eq!(post("team/a"), 403);
    write("nonsense");
    assert_eq!((post("team/a"), post("other")), (403, 202));
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let mut serve = tonnage(&["serve", "--listen", "127.0.0.1:0", "--data"]);
    let (code, _, stderr) = run(serve.arg(&data).args(options));
    assert!(code == 2 && stderr.contains("rules.toml"), "{stderr}");
}

/// Guards: options that would leave a registry open by mistake are errors.
#[test]
fn wrong_options_of_access_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    for (options, expected) in [
        (&["--listen", "0.0.0.0:0"][..], "--auth"),
        (&["--auth-rules", "/x"], "no effect"),
        (&["--auth-htpasswd", "/x"], "no effect"),
        (&["--auth", "--insecure-anonymous"], "remove one"),
        (
            &[
                "--auth",
                "--listen",
                "127.0.0.1:0",
                "--auth-htpasswd",
                "/nowhere",
            ],
            "/nowhere",
        ),
    ] {
        let mut command = tonnage(&["serve", "--admin-listen", "off", "--data"]);
        command.arg(directory.path().join("data"));
        let (code, _, stderr) = run(command.args(options));
        assert!(
            code != 0 && stderr.contains(expected),
            "{options:?}: {stderr}"
        );
    }
}
