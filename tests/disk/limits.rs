//! The program with too few descriptors or threads, or with a limit on the size of files.
//!
//! Owns: the tests of what a limit costs, and that it costs nothing once it is lifted. An operation that is not
//! attempted fails its request; the store accepts writes all the time.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use http::Method;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tonnage_tests::content::{Content, digest_of_bytes};
use tonnage_tests::http::{Answer, Connection, Upload};
use tonnage_tests::process::{Server, folder, program};
use tonnage_tests::push::{Pusher, Shape};
use tonnage_tests::say;

const MIB: u64 = 1 << 20;
/// A user id under which nothing else runs.
const LONE_USER: u32 = 61_234;

/// Sets the limit on threads of a server of the lone user, as that user: not even root may always change it for a
/// process of another user.
fn limit_threads(server: &Server, user: &[String], limit: &str) {
    let (first, rest) = user.split_first().expect("a wrapper");
    let status = Command::new(first)
        .args(rest)
        .args(["prlimit", "--pid", &server.pid().to_string()])
        .arg(format!("--nproc={limit}:"))
        .status()
        .unwrap();
    assert!(status.success(), "prlimit: {status}");
}

/// Sets a limit of a running server. Returns the former limit.
fn limit(server: &Server, resource: Resource, current: u64) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    let maximum = getrlimit(resource).maximum;
    let current = Some(current);
    prlimit(pid, resource, Rlimit { current, maximum }).expect("a limit of our own process")
}

fn lift(server: &Server, resource: Resource, was: Rlimit) {
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    prlimit(pid, resource, was).expect("a limit of our own process");
}

async fn pusher(server: &Server) -> Pusher {
    let connection = Connection::connect(server.address()).await.unwrap();
    Pusher::new(connection, "limits/test")
}

async fn get(pusher: &mut Pusher, content: Content) -> Answer {
    let path = pusher.blob_path(&content.digest());
    let sent = pusher.client.send(Method::GET, &path, &[], Upload::empty());
    sent.await.expect("an answer")
}

async fn push(pusher: &mut Pusher, content: Content) -> Result<(), String> {
    let digest = content.digest();
    let pushed = pusher.blob(content, &digest, Shape::Monolithic).await;
    pushed.map(drop)
}

/// Pushes and deletes what needs no new descriptor: a small blob, a manifest with a tag, and the tag.
async fn works(pusher: &mut Pusher, number: u64) {
    let small = Content::new(number, 1000);
    push(pusher, small).await.expect("a small blob");
    pusher.empty_json().await.expect("the config");
    let manifest = Pusher::manifest(&[(small.digest(), 1000)], number);
    pusher
        .put_manifest("tag", &manifest)
        .await
        .expect("a manifest");
    let deleted = pusher.delete_manifest("tag").await.expect("an answer");
    deleted.expect(202);
}

fn check_refusal(refused: &str, log: &str) {
    assert!(
        refused.contains("503") && refused.contains("nothing was changed"),
        "{refused}"
    );
    assert!(log.contains("not attempted"), "{log}");
    assert!(!log.contains("takes no more writes"), "{log}");
}

/// Guards: a server without free descriptors rejects requests that need a new one with 503 and a line in the log.
/// Commits need none, a blob that could not be opened does not count as damaged, writes continue, and everything works
/// again once there are descriptors.
#[tokio::test]
async fn without_descriptors_only_requests_that_need_one_fail() {
    let mut server = Server::start().unwrap();
    let (cold, large) = (Content::new(1, 9 * MIB), Content::new(2, 9 * MIB));
    push(&mut pusher(&server).await, cold).await.unwrap();
    server.stop().unwrap();
    server.restart().unwrap();
    let mut client = pusher(&server).await;
    works(&mut client, 10).await;

    let was = limit(&server, Resource::Nofile, 3);
    let refused = get(&mut client, cold).await.expect(503);
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    works(&mut client, 11).await;
    let found = client.head_blob(&cold.digest()).await.expect("an answer");
    found.expect(200);
    let refused = push(&mut client, large).await.unwrap_err();
    check_refusal(&refused, &server.log_with("not attempted"));

    lift(&server, Resource::Nofile, was);
    let mut client = pusher(&server).await;
    let read = get(&mut client, cold).await.expect(200);
    assert!(read.body[..] == cold.bytes()[..]);
    push(&mut client, large).await.unwrap();
    works(&mut client, 12).await;
}

/// Starts a server with `options` under a hard limit of open files.
fn with_open_files(data: &Path, limit: u32, options: &[&str]) -> Result<Server, String> {
    let wrapper = ["prlimit".to_owned(), format!("--nofile={limit}:{limit}")];
    let options = options.iter().map(|option| (*option).to_owned());
    Server::start_as(
        &data.join("data"),
        &data.join("log"),
        &wrapper,
        options.collect(),
    )
}

/// Guards: if the hard limit of open files is too low for the defaults, a server accepts fewer connections and files,
/// and reports that. Large uploads beyond its files close theirs while they receive nothing, so that all uploads, and
/// small pushes, manifests and pulls that need another file, continue. Writes never stop.
#[tokio::test]
async fn open_uploads_do_not_block_others() {
    let data = folder().unwrap();
    let mut server = with_open_files(data.path(), 148, &[]).unwrap();
    assert!(
        server
            .log_with("limit of open files is too low")
            .contains("limit of open files is too low"),
        "{}",
        server.log()
    );
    let cold = Content::new(1, 9 * MIB);
    push(&mut pusher(&server).await, cold).await.unwrap();
    server.stop().unwrap();
    server.restart().unwrap();
    let mut client = pusher(&server).await;
    let mut begun = Vec::new();
    for number in 0..20 {
        let content = Content::new(100 + number, 9 * MIB);
        let at = client.open_upload().await.unwrap();
        let body = Upload::part(content, 0, 9 * MIB);
        let answer = client.client.send(Method::PATCH, &at, &[], body).await;
        answer.expect("an answer").expect(202);
        begun.push(at);
    }
    works(&mut client, 10).await;
    let read = get(&mut client, cold).await.expect(200);
    assert!(read.body[..] == cold.bytes()[..]);
    push(&mut client, Content::new(3, 9 * MIB)).await.unwrap();
    for at in begun {
        let gone = client
            .client
            .send(Method::DELETE, &at, &[], Upload::empty());
        gone.await.expect("an answer").expect(204);
    }
    works(&mut client, 11).await;
}

/// Guards: a hard limit of open files that is too low for any server, or for the configured values, is an error at the
/// start. The error names the required number and what to change.
#[test]
fn too_few_open_files_are_an_error_at_the_start() {
    let data = folder().unwrap();
    let cases: [(u32, &[&str], &str); 3] = [
        (40, &[], "LimitNOFILE"),
        (
            1000,
            &["--limits-connections", "2000"],
            "limits.connections is 2000 (set)",
        ),
        (
            1000,
            &["--storage-open-files", "2000"],
            "storage.open_files is 2000 (set)",
        ),
    ];
    for (limit, options, said) in cases {
        let refused = with_open_files(data.path(), limit, options).unwrap_err();
        assert!(refused.contains(said), "{refused}");
        let clear = format!("allows {limit} open files");
        assert!(
            refused.contains(&clear) && !refused.contains("panicked"),
            "{refused}"
        );
    }
}

/// Guards: a write beyond the largest file that the process may have (`ulimit -f`) fails only that upload, with 503 and
/// a line in the log, and does not end the process. Smaller writes succeed, and all do once the limit is lifted.
#[tokio::test]
async fn a_limit_on_the_size_of_files_fails_that_upload_alone() {
    let data = folder().unwrap();
    let (store, log) = (data.path().join("data"), data.path().join("log"));
    // More than a journal file, less than the reserve.
    let wrapper = ["prlimit", "--fsize=20971520:unlimited"].map(str::to_owned);
    let server = Server::start_on(&store, &log, &wrapper).unwrap();
    let mut client = pusher(&server).await;
    works(&mut client, 10).await;
    for (number, shape) in [(1, Shape::Monolithic), (2, Shape::Streamed)] {
        let large = Content::new(number, 40 * MIB);
        let digest = large.digest();
        let refused = client.blob(large, &digest, shape).await.unwrap_err();
        client = pusher(&server).await;
        check_refusal(&refused, &server.log_with("not attempted"));
        works(&mut client, 10 + number).await;
    }
    // Many of these fill a segment beyond the limit, so the next one is used.
    for number in 100..124 {
        let content = Content::new(number, MIB);
        if push(&mut client, content).await.is_err() {
            client = pusher(&server).await;
            let again = push(&mut client, content).await;
            again.unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
        }
    }
    let said = server.log_with("File too large");
    assert!(said.contains("File too large"), "{said}");
    assert!(!said.contains("takes no more writes"), "{said}");
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    lift(&server, Resource::Fsize, unlimited);
    push(&mut client, Content::new(1, 40 * MIB)).await.unwrap();
    works(&mut client, 20).await;
}

/// Creates a store directory that the lone user may write to. Returns the command prefix that runs the program as that
/// user, or `None` without the permission for it.
fn as_lone_user(data: &Path) -> Option<Vec<String>> {
    if !rustix::process::geteuid().is_root() {
        say::skipped(
            "a limit on threads",
            "the limit counts all of a user's processes, and only root may become another user",
        );
        return None;
    }
    chown(data, Some(LONE_USER), Some(LONE_USER)).unwrap();
    let user = [
        format!("--reuid={LONE_USER}"),
        format!("--regid={LONE_USER}"),
    ];
    let mut wrapper = vec!["setpriv".to_owned(), "--clear-groups".to_owned()];
    wrapper.extend(user);
    Some(wrapper)
}

/// Guards: a server that cannot start the threads that it needs reports this at the start and ends; it neither panics
/// nor hangs.
#[test]
fn too_few_threads_are_an_error_at_the_start() {
    let data = folder().unwrap();
    let Some(user) = as_lone_user(data.path()) else {
        return;
    };
    for threads in 1..=10 {
        let output = Command::new("timeout")
            .arg("60")
            .args(&user)
            .arg("prlimit")
            .arg(format!("--nproc={threads}:{threads}"))
            .arg(program().unwrap())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"])
            .args(["--worker-threads", "2", "--data"])
            .arg(data.path().join("data"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let clear = said.contains("threads, but only") && said.contains("ulimit -u");
        assert!(
            clear && !said.contains("panicked"),
            "{threads}: {:?}\n{said}",
            output.status
        );
        assert_eq!(output.status.code(), Some(3), "{threads}: {said}");
    }
}

/// Guards: a limit on threads that is reached while the server runs fails only a manifest so large that it needs a
/// thread of its own. Everything else continues with the existing threads.
#[tokio::test]
async fn a_later_limit_on_threads_fails_only_large_manifests() {
    let data = folder().unwrap();
    let Some(user) = as_lone_user(data.path()) else {
        return;
    };
    let (store, log) = (data.path().join("data"), data.path().join("log"));
    let server = Server::start_on(&store, &log, &user).unwrap();
    let was = getrlimit(Resource::Nproc).current;
    limit_threads(&server, &user, "1");
    let mut client = pusher(&server).await;
    works(&mut client, 10).await;
    for number in 1..4 {
        let large = Content::new(number, 20 * MIB);
        push(&mut client, large).await.unwrap();
        let read = get(&mut client, large).await.expect(200);
        assert!(read.body[..] == large.bytes()[..]);
    }
    let note = "x".repeat(200 << 10);
    let manifest = Pusher::manifest(&[], 1);
    let manifest = String::from_utf8(manifest)
        .unwrap()
        .replace("\"note\":\"1\"", &format!("\"note\":\"{note}\""));
    assert!(manifest.len() > 200 << 10, "the manifest has no annotation");
    let refused = client
        .put_manifest("large", manifest.as_bytes())
        .await
        .unwrap_err();
    assert!(
        refused.contains("503") && refused.contains("nothing was changed"),
        "{refused}"
    );
    let was = was.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    limit_threads(&server, &user, &was);
    client
        .put_manifest("large", manifest.as_bytes())
        .await
        .unwrap();
    let stored = client.get_manifest("large").await.unwrap().expect(200);
    assert_eq!(
        digest_of_bytes(&stored.body),
        digest_of_bytes(manifest.as_bytes())
    );
}
