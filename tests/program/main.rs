//! The released program as a process: the output of `tonnage serve`, its end, what it refuses; and the other commands.
//!
//! Owns: end-to-end tests that need only the program. Refuses: any address but loopback, any port but a free one.

mod acme;
mod auth;
mod canary;
mod cli;
mod collect;
mod kubelet;
mod names;
mod online;
mod pushing;
mod refused;
mod repair;
mod scrub;
mod serving;
mod stopped;
mod tls;
mod usage;
mod whence;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use self::serving::{Serving, run, tonnage};

/// Guards: a whole life: the banner names the addresses and paths, `smoke` succeeds, SIGTERM ends with 0, and the
/// closed store is sound, also by a deep check, with the right counts.
#[test]
fn a_registry_starts_works_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    assert!(
        server
            .banner
            .contains(&format!("data      {}", data.display())),
        "{}",
        server.banner
    );
    assert!(
        server.banner.contains("new store created"),
        "{}",
        server.banner
    );
    assert!(
        server.banner.contains("may push, pull and delete"),
        "{}",
        server.banner
    );
    let smoke = [
        "smoke",
        &server.url,
        "--size",
        "9 MiB",
        "--strict",
        "--keep",
    ];
    let (code, stdout, _) = run(&mut tonnage(&smoke));
    assert_eq!(code, 0, "{stdout}");
    server.signal("-TERM");
    let (code, rest) = server.end();
    assert_eq!(code, Some(0), "{rest}");
    let fsck = ["fsck", "--deep", "--json", "--data"];
    let (code, stdout, stderr) = run(tonnage(&fsck).arg(&data));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&report["version"], &report["closed_cleanly"]),
        (&1.into(), &true.into())
    );
    assert_eq!(
        (&report["tags"], &report["manifests"]),
        (&1.into(), &2.into()),
        "{stdout}"
    );
    let (code, stdout, _) = run(tonnage(&["stats", "--json", "--data"]).arg(&data));
    let stats: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &stats["blobs"]), (0, &report["blobs"]), "{stdout}");
    let (code, stdout, _) =
        run(tonnage(&["inspect"]).arg(data.join("journal/0000000000000001.journal")));
    assert!(
        code == 0 && stdout.contains("set tag smoke in 1 to sha256:"),
        "{stdout}"
    );
}

/// Guards: after kill -9 everything acknowledged is present, and the next start reports the recovery.
#[test]
fn a_killed_registry_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::start(directory.path(), &[]);
    let smoke = [
        "smoke",
        &server.url,
        "--size",
        "1 MiB",
        "--keep",
        "--strict",
    ];
    assert_eq!(run(&mut tonnage(&smoke)).0, 0);
    server.signal("-KILL");
    assert_eq!(server.end().0, None);
    let (code, stdout, stderr) = run(tonnage(&["fsck", "--data"]).arg(directory.path()));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let server = Serving::start(directory.path(), &[]);
    assert!(
        server.banner.contains("not closed cleanly"),
        "{}",
        server.banner
    );
}

/// Guards: an address in use, and an open address without permission, are refused before the store is touched.
#[test]
fn addresses_are_refused_before_the_store_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(tonnage(&["serve", "--listen", &address, "--data"]).arg(&data));
    assert!(code == 4 && stderr.contains("--listen"), "{code} {stderr}");
    let (code, _, stderr) = run(tonnage(&["serve", "--listen", "0.0.0.0:0", "--data"]).arg(&data));
    assert!(
        code == 2 && stderr.contains("--insecure-anonymous"),
        "{code} {stderr}"
    );
    assert!(!data.exists(), "the store was created nevertheless");
}

/// Guards: during an active request the first signal waits for it, and the second ends at once with 128 + 15.
#[test]
fn the_second_signal_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Serving::start(directory.path(), &["--drain-timeout", "10m"]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut request = BufReader::new(TcpStream::connect(&address).unwrap());
    let begin =
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    request.get_mut().write_all(begin.as_bytes()).unwrap();
    let mut location = String::new();
    while !location.to_lowercase().starts_with("location:") {
        location.clear();
        assert!(
            request.read_line(&mut location).unwrap() > 0,
            "no upload began"
        );
    }
    let upload = location.split_once(':').unwrap().1.trim();
    let path = upload.split_once("/v2/").unwrap().1;
    // The server sends 100 when it waits for the body: from then on the request is active.
    let head = format!("PATCH /v2/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n");
    let expect = format!("{head}Expect: 100-continue\r\n\r\n");
    request.get_mut().write_all(expect.as_bytes()).unwrap();
    let mut status = String::new();
    while !status.starts_with("HTTP/1.1 100") {
        status.clear();
        assert!(
            request.read_line(&mut status).unwrap() > 0,
            "no 100 Continue came"
        );
    }
    server.signal("-TERM");
    let mut line = String::new();
    while !line.contains("draining") {
        line.clear();
        assert!(
            server.stderr.read_line(&mut line).unwrap() > 0,
            "the server did not wait"
        );
    }
    server.signal("-TERM");
    let (code, rest) = server.end();
    assert_eq!(code, Some(143), "{rest}");
}

/// Passes everything through to `server`, but flips one bit after the first 2 MiB of every connection's answers.
fn flipping_proxy(server: String) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, upstream) = (client.unwrap(), TcpStream::connect(&server).unwrap());
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            // A side that disconnected ends its copy; the other one notices by itself.
            std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
            std::thread::spawn(move || flip(upstream, client));
        }
    });
    address
}

fn flip(mut from: TcpStream, mut to: TcpStream) {
    let (mut passed, mut buffer) = (0usize, vec![0; 64 << 10]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if (passed..passed + count).contains(&(2 << 20)) {
            buffer[(2 << 20) - passed] ^= 1;
        }
        passed += count;
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Guards: `smoke` notices one flipped bit in an answer: it names the byte, ends with 1, and removes what it pushed.
#[test]
fn smoke_notices_one_flipped_bit() {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::start(directory.path(), &[]);
    let proxy = flipping_proxy(server.url.trim_start_matches("http://").to_owned());
    let smoke = [
        "smoke",
        &format!("http://{proxy}"),
        "--size",
        "1 MiB",
        "--json",
    ];
    let (code, stdout, stderr) = run(&mut tonnage(&smoke));
    assert_eq!(code, 1, "{stdout}{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let failed: Vec<_> = steps
        .iter()
        .filter(|step| step["verdict"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{stdout}");
    assert_eq!(failed[0]["name"], "pull and compare the chunked layer");
    assert!(
        failed[0]["expected"]
            .as_str()
            .unwrap()
            .contains("at byte 20"),
        "{stdout}"
    );
    assert_eq!(steps.last().unwrap()["name"], "clean up after the failure");
}
