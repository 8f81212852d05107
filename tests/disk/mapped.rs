//! The program over base files that stop being readable while it runs.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;

use tonnage_tests::content::Content;
use tonnage_tests::http::Connection;
use tonnage_tests::process::Server;
use tonnage_tests::push::{Pusher, Shape};

const SIGBUS: i32 = 7;

async fn pusher(server: &Server) -> Pusher {
    let connection = Connection::connect(server.address()).await.unwrap();
    Pusher::new(connection, "mapped/test")
}

/// Guards: a base file that is cut while the server runs ends it by SIGBUS at the next look into it, after a line that names the file and
/// says what to do; the next start rebuilds it and has everything.
#[tokio::test]
async fn a_base_file_that_is_cut_is_named_and_rebuilt() {
    let mut server = Server::start().unwrap();
    let blob = Content::new(1, 1000);
    let mut client = pusher(&server).await;
    client
        .blob(blob, &blob.digest(), Shape::Monolithic)
        .await
        .unwrap();
    client.empty_json().await.unwrap();
    let manifest = Pusher::manifest(&[(blob.digest(), 1000)], 1);
    client.put_manifest("tag", &manifest).await.unwrap();
    // The checkpoint of a clean stop writes the files.
    server.stop().unwrap();
    server.restart().unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(server.data().join("base")).unwrap() {
        let path = entry.unwrap().path();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        names.push(path.display().to_string());
    }
    assert!(!names.is_empty(), "no base files");
    let asked = pusher(&server).await.get_manifest("tag").await;
    assert!(asked.is_err(), "it was answered: {asked:?}");
    let ended = server.ended().unwrap();
    let log = server.log();
    assert_eq!(ended.signal(), Some(SIGBUS), "{ended}\n{log}");
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("cannot read a mapped page"))
        .collect();
    let [line] = lines[..] else {
        panic!("{log}");
    };
    assert!(names.iter().any(|name| line.contains(name)), "{line}");
    assert!(line.contains("rebuilds it from the journal"), "{line}");

    server.restart().unwrap();
    let mut client = pusher(&server).await;
    let found = client.get_manifest("tag").await.unwrap().expect(200);
    assert!(found.body[..] == manifest[..]);
    client.head_blob(&blob.digest()).await.unwrap().expect(200);
}

/// Guards: a SIGBUS that a process sent ends the server as it does by default, and is not reported as an error of a device.
#[tokio::test]
async fn a_sigbus_from_outside_ends_the_server() {
    let mut server = Server::start().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::BUS).unwrap();
    let ended = server.ended().unwrap();
    let log = server.log();
    assert_eq!(ended.signal(), Some(SIGBUS), "{ended}\n{log}");
    assert!(!log.contains("mapped page"), "{log}");
}
