//! The program where `io_uring` is allowed, and where it is blocked as by a container runtime.

use tonnage_tests::client::Client;
use tonnage_tests::content::Content;
use tonnage_tests::process::{Server, folder};
use tonnage_tests::uring;

use crate::full::{MIB, path_of, put};
use crate::served::Served;

/// Pushes and pulls a small blob and one with a segment of its own.
async fn work(client: &Client) {
    for (seed, length) in [(1, 1000), (2, 9 * MIB + 5000)] {
        let blob = Content::new(seed, length);
        put(client, blob.bytes()).await.expect(201);
        let pulled = client.get(&path_of(blob)).await.expect(200);
        assert_eq!(pulled.body, blob.bytes());
    }
}

/// Guards: where it is allowed and demanded, the rings serve the journal, small blobs, uploads and scrub, as the
/// metrics say, and what was pushed is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rings_serve_what_they_can() {
    if !uring::works() {
        return;
    }
    let folder = folder().unwrap();
    let data = folder.path().join("data");
    let served = Served::start_with(&data, &["--io", "io_uring"]).unwrap();
    work(&Client::new(served.address)).await;
    let (code, said) = crate::served::run(&["scrub", "--json"], &data);
    assert_eq!(code, Some(0), "{said}");
    let metrics = Client::new(served.admin).get("/metrics").await.expect(200);
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for class in ["journal", "commit_data", "upload_write", "background"] {
        let labels = format!("class=\"{class}\",backend=\"io_uring\"");
        let line = format!("registry_io_operations_total{{{labels}}} ");
        let (_, count) = metrics.split_once(&line).expect(&line);
        assert!(!count.starts_with('0'), "{line}");
        let failures = format!("registry_io_failures_total{{{labels},attempted=\"yes\"}} 0");
        assert!(metrics.contains(&failures), "{failures}");
    }
    let (code, said) = served.stop();
    assert_eq!(code, Some(0), "{said}");
}

/// Returns what starts a server as a container runtime does whose profile refuses these calls.
fn under_seccomp(refused: &str) -> [String; 2] {
    [env!("CARGO_BIN_EXE_seccomp"), refused].map(str::to_owned)
}

/// Guards: where a seccomp profile refuses any of its calls, `auto` says so and what to do, and the server works;
/// `io_uring` does not start, with the same words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_rings_are_replaced_by_threads() {
    let folder = folder().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let all = "io_uring_setup,io_uring_enter,io_uring_register";
    let one_of_them: &[&str] = if uring::works() {
        &["io_uring_enter", "io_uring_register"]
    } else {
        &[]
    };
    for refused in [all].iter().chain(one_of_them) {
        let start = |io: &str| {
            let options = vec!["--io".to_owned(), io.to_owned()];
            Server::start_as(&data, &log, &under_seccomp(refused), options)
        };
        let why = "Operation not permitted";
        let mut server = start("auto").unwrap();
        let said = server.log_with("recovery");
        for part in [
            "threads (auto: io_uring could not",
            why,
            "seccomp profile",
            "kernel.io_uring_disabled",
        ] {
            assert!(said.contains(part), "{refused}: no {part} in {said}");
        }
        work(&Client::new(server.address())).await;
        assert!(server.stop().unwrap().success());
        let said = start("io_uring").unwrap_err();
        for part in [why, "seccomp profile", "--io auto"] {
            assert!(said.contains(part), "{refused}: no {part} in {said}");
        }
    }
}

/// Guards: under a seccomp profile that allows its calls, the rings serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_rings_serve_under_seccomp() {
    if !uring::works() {
        return;
    }
    let folder = folder().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let options = ["--io", "io_uring"].map(str::to_owned).to_vec();
    let mut server = Server::start_as(&data, &log, &under_seccomp("pidfd_open"), options).unwrap();
    work(&Client::new(server.address())).await;
    assert!(server.stop().unwrap().success());
}
