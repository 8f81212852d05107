//! The program with run files that are truncated while it runs.

use std::fs::OpenOptions;

use tonnage_tests::content::Content;
use tonnage_tests::http::Connection;
use tonnage_tests::process::Server;
use tonnage_tests::push::{Pusher, Shape};

async fn pusher(server: &Server, repository: &str) -> Pusher {
    let connection = Connection::connect(server.address()).await.unwrap();
    Pusher::new(connection, repository)
}

async fn push(client: &mut Pusher, blob: &Content) -> Vec<u8> {
    client
        .blob(*blob, &blob.digest(), Shape::Monolithic)
        .await
        .unwrap();
    client.empty_json().await.unwrap();
    let manifest = Pusher::manifest(&[(blob.digest(), 1000)], 1);
    client.put_manifest("tag", &manifest).await.unwrap();
    manifest.to_vec()
}

/// Guards: a run file that is truncated while the server runs fails only the requests that need it; the log names the
/// file and what to do. The server continues, rows in memory are served, and the start after an ordinary stop rebuilds
/// the file and has everything.
#[tokio::test]
async fn a_run_that_is_cut_fails_its_lookups_alone() {
    let mut server = Server::start().unwrap();
    let before = Content::new(1, 1000);
    let manifest = push(&mut pusher(&server, "cut/before").await, &before).await;
    // The checkpoint of a clean stop writes the file.
    server.stop().unwrap();
    server.restart().unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(server.data().join("runs")).unwrap() {
        let path = entry.unwrap().path();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        names.push(path.display().to_string());
    }
    assert!(!names.is_empty(), "no runs");
    let asked = pusher(&server, "cut/before")
        .await
        .get_manifest("tag")
        .await;
    asked.unwrap().expect(500);
    let log = server.log_with(&names[0]);
    let line = log.lines().find(|line| line.contains(&names[0]));
    let line = line.unwrap_or_else(|| panic!("{names:?}: {log}"));
    assert!(
        line.contains("restart") && line.contains("journal"),
        "{line}"
    );

    let ended = server.stop().unwrap();
    assert!(ended.success(), "{ended}");
    server.log_with("the stop is not clean");
    server.restart().unwrap();
    let mut client = pusher(&server, "cut/before").await;
    let found = client.get_manifest("tag").await.unwrap().expect(200);
    assert!(found.body[..] == manifest[..]);
    client
        .head_blob(&before.digest())
        .await
        .unwrap()
        .expect(200);
}
