//! Access control: users, rules, and what the program prints about them.

use std::path::Path;

use crate::serving::{Serving, run, run_with, send_over, tonnage, until};

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
    run_with(&mut command, format!("{password}\n").as_bytes())
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
    until(|| status(&server, "GET /v2/", &alice) == 401);
    let (code, stdout, _) = run(tonnage(&["user", "list", "--data"]).arg(&data));
    assert_eq!((code, &*stdout), (0, "admin  admin\nalice\n"));
    let remove = ["user", "remove", "alice", "--data"];
    assert_eq!(run(tonnage(&remove).arg(&data)).0, 0);
    assert_eq!(run(tonnage(&remove).arg(&data)).0, 9);
    until(|| status(&server, "GET /v2/", &basic("alice", "battery staple")) == 401);
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
    until(|| post("other") == 202);
    assert_eq!(post("team/a"), 403);
    write("nonsense");
    assert_eq!((post("team/a"), post("other")), (403, 202));
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let listen = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"];
    let mut serve = tonnage(&listen);
    let (code, _, stderr) = run(serve.arg("--data").arg(&data).args(options));
    assert!(code == 2 && stderr.contains("rules.toml"), "{stderr}");
}

/// Guards: who leaves a group loses its rights: groups are replaced, and not added to. No name gives a right, only a
/// rule does.
#[test]
fn groups_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (data, rules) = (at("data"), at("rules.toml"));
    let write = |members: &str| {
        let text = format!(
            "[groups]\ndev = [{members}]\n[[rule]]\nrepositories = 'team/*'\npush = ['@dev']\n"
        );
        std::fs::write(&rules, text).unwrap();
    };
    write("'dev-ci', 'bob'");
    for name in ["dev-ci", "dev", "admin", "robot-dev-ci"] {
        let added = with_password(&["user", "add", name], &data, "correct horse");
        assert_eq!(added.0, 0, "{}", added.2);
    }
    let named = rules.display().to_string();
    let server = Serving::start(&data, &["--auth", "--auth-rules", &named]);
    let post = |name: &str| {
        let line = "POST /v2/team/a/blobs/uploads/";
        status(&server, line, &basic(name, "correct horse"))
    };
    assert_eq!(post("dev-ci"), 202);
    for name in ["dev", "admin", "robot-dev-ci"] {
        assert_eq!(post(name), 403, "{name}");
    }
    write("'bob'");
    until(|| post("dev-ci") == 403);
}

/// Guards: a key that a command makes works at once on the running server, for what its scope and the rules allow; it
/// is shown once, listed with its last use, and revoked. A key of a name that does not exist is a mistake.
#[test]
fn keys_are_known_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (
        directory.path().join("data"),
        directory.path().join("rules.toml"),
    );
    std::fs::write(&rules, "[[rule]]\nrepositories = '*'\npush = ['ci']\n").unwrap();
    let named = rules.display().to_string();
    let server = Serving::start(
        &data,
        &["--auth", "--auth-rules", &named, "--log-level", "debug"],
    );
    let key = |arguments: &[&str]| run(tonnage(&["key"]).args(arguments).arg("--data").arg(&data));
    let (code, _, stderr) = key(&["create", "ci"]);
    assert!(code == 9 && stderr.contains("--robot"), "{stderr}");
    assert_eq!(key(&["create", "admin", "--robot"]).0, 2);
    let create = [
        "create",
        "ci",
        "--robot",
        "--scope",
        "team/*:push",
        "--label",
        "build",
    ];
    let (code, stdout, stderr) = key(&create);
    assert!(code == 0 && stderr.contains("not shown again"), "{stderr}");
    let secret = stdout.trim_end();
    let ci = basic("ci", secret);
    let post = |name: &str| {
        let line = format!("POST /v2/{name}/blobs/uploads/");
        status(&server, &line, &ci)
    };
    assert_eq!((post("team/a"), post("other")), (202, 403));
    assert_eq!(status(&server, "GET /v2/", &basic("admin", secret)), 401);
    let can = tonnage(&[
        "can",
        "ci",
        "push",
        "other",
        "--auth",
        "--auth-rules",
        &named,
        "--data",
    ])
    .arg(&data)
    .status();
    assert!(can.unwrap().success(), "a robot account is a user");
    let id = secret.split('_').nth(1).unwrap();
    let (_, listed, _) = key(&["list"]);
    assert!(
        listed.contains(id)
            && listed.contains("ci (robot)")
            && listed.contains("team/*:push  build"),
        "{listed}"
    );
    assert_eq!(key(&["revoke", id, "0000"]).0, 9);
    assert_eq!(post("team/a"), 202, "all are revoked or none");
    server.signal("-TERM");
    let (_, log) = server.end();
    let (_, listed, _) = key(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert!(listed["keys"][0]["last_used"].is_string(), "{listed}");
    assert!(!log.contains(secret) && !listed.to_string().contains(secret));
    let server = Serving::start(&data, &["--auth", "--auth-rules", &named]);
    assert_eq!(key(&["revoke", id]).0, 0);
    until(|| status(&server, "GET /v2/", &ci) == 401);
    // A user or robot account that is removed takes its keys along.
    assert_eq!(key(&create).0, 0);
    assert_eq!(
        run(tonnage(&["user", "remove", "ci", "--data"]).arg(&data)).0,
        0
    );
    assert_eq!(key(&["list"]).1, "");
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
