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

/// Guards: where it is blocked, `auto` says so and what to do, and the server works; `io_uring` does not start, with
/// the same words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_rings_are_replaced_by_threads() {
    if !uring::strace("a server without io_uring").unwrap() {
        return;
    }
    let folder = folder().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let inject = "inject=io_uring_setup:error=EPERM";
    let wrapper = ["strace", "-f", "-o", "/dev/null", "-e", inject].map(str::to_owned);
    let start = |io: &str| {
        let options = vec!["--io".to_owned(), io.to_owned()];
        Server::start_as(&data, &log, &wrapper, options)
    };
    let why = "io_uring could not create a ring: Operation not permitted";
    let mut server = start("auto").unwrap();
    let said = server.log_with("recovery");
    for part in [
        &format!("threads (auto: {why}"),
        "seccomp profile",
        "kernel.io_uring_disabled",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    work(&Client::new(server.address())).await;
    assert!(server.stop().unwrap().success());
    let refused = start("io_uring").unwrap_err();
    for part in [why, "seccomp profile", "--io auto"] {
        assert!(refused.contains(part), "no {part} in {refused}");
    }
}
