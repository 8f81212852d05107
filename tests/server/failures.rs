//! Failures of disk and client, and stops by the operator.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_server::ServerOptions;
use tonnage_server::access::{Caller, Decision, Permission, Policy, Verdict};
use tonnage_tests::registry::TestRegistry;

use crate::wire::rest;
use crate::{MANIFEST, begin, content, push_blob, push_image, sha256};

/// Overwrites every occurrence of `needle` in a segment.
fn damage(data: &Path, needle: &[u8]) {
    let mut places = 0;
    for entry in fs::read_dir(data.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        while let Some(at) = bytes
            .windows(needle.len())
            .position(|window| window == needle)
        {
            bytes[at] ^= 1;
            places += 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(places > 0, "the content is in no segment");
}

/// Guards: damaged bytes are never served. If damage is found before the head is sent, the answer is a 500 without
/// internal text. Once it is known, an existence check is 404, so that the client pushes again, which heals the blob.
/// Other blobs are served.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_blobs_are_not_served_and_heal() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(1, 100_000);
    let digest = push_blob(&client, "a", &blob).await;
    let other = push_blob(&client, "a", b"intact").await;
    damage(registry.store.path(), &blob[40_000..40_064]);
    let path = format!("/v2/a/blobs/{digest}");
    client.head(&path).await.expect(200);
    let answer = client.get(&path).await.expect_error(500, "UNKNOWN");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(!text.contains("segment") && !text.contains('/'), "{text}");
    client.head(&path).await.expect(404);
    client
        .get(&format!("/v2/a/blobs/{other}"))
        .await
        .expect(200);
    push_blob(&client, "a", &blob).await;
    client.head(&path).await.expect(200);
    assert_eq!(client.get(&path).await.expect(200).body, blob);
}

/// Guards: segment files that were removed or truncated while the server was stopped are noticed at start. No answer
/// claims that their blobs exist: HEAD is 404, a mount opens an upload, GET is an error. The first push stores the
/// bytes again, permanently.
#[tokio::test(flavor = "multi_thread")]
async fn lost_segments_are_denied_from_the_start_and_heal() {
    let lose: [fn(&Path); 2] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(4096 + 100).unwrap();
        },
    ];
    for lose in lose {
        let registry = TestRegistry::start().await;
        let client = registry.client();
        let (small, large) = (content(1, 100_000), content(2, 9 << 20));
        for blob in [&small, &large] {
            push_blob(&client, "a", blob).await;
        }
        let manifest = push_image(&client, "a", "latest", &small).await;
        let registry = registry
            .restart_after(|data| {
                for path in segments(data) {
                    lose(&path);
                }
            })
            .await;
        let client = registry.client();
        client.head("/v2/a/manifests/latest").await.expect(404);
        for blob in [&small, &large] {
            let digest = sha256(blob);
            let path = format!("/v2/a/blobs/{digest}");
            client.head(&path).await.expect(404);
            client.get(&path).await.expect_error(500, "UNKNOWN");
            let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
            client.post(&mount).await.expect(202);
            push_blob(&client, "a", blob).await;
            client.head(&path).await.expect(200);
            assert!(client.get(&path).await.expect(200).body == *blob);
        }
        assert_eq!(push_image(&client, "a", "latest", &small).await, manifest);
        client.head("/v2/a/manifests/latest").await.expect(200);
        let registry = registry.restart().await;
        let client = registry.client();
        client.get("/v2/a/manifests/latest").await.expect(200);
        for blob in [&small, &large] {
            let path = format!("/v2/a/blobs/{}", sha256(blob));
            client.head(&path).await.expect(200);
            assert!(client.get(&path).await.expect(200).body == *blob);
        }
    }
}

/// Returns the segment files of a store, in order.
fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("segments")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Guards: a segment that cannot be opened, although descriptors and memory suffice, is damage. After one failed read
/// HEAD is 404. The first push stores the bytes again, whether or not anything was read before.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_does_not_open_is_damage() {
    let replace: [fn(&Path); 3] = [
        |_| (),
        |path| fs::create_dir(path).unwrap(),
        |path| std::os::unix::fs::symlink(path, path).unwrap(),
    ];
    for (replace, read_before) in replace
        .into_iter()
        .flat_map(|how| [(how, true), (how, false)])
    {
        let registry = TestRegistry::start().await;
        let blob = content(1, 9 << 20);
        let digest = push_blob(&registry.client(), "a", &blob).await;
        // From here on no handle is open.
        let registry = registry.restart().await;
        let client = registry.client();
        for path in segments(registry.store.path()) {
            fs::remove_file(&path).unwrap();
            replace(&path);
        }
        let path = format!("/v2/a/blobs/{digest}");
        if read_before {
            client.get(&path).await.expect_error(500, "UNKNOWN");
            client.head(&path).await.expect(404);
        }
        push_blob(&client, "a", &blob).await;
        client.head(&path).await.expect(200);
        assert!(client.get(&path).await.expect(200).body == blob);
    }
}

/// Guards: two dedicated segments of one length whose payloads and tables were exchanged match all their checksums, but
/// hold each other's blob. Neither is served, and a push heals, whether or not anything was read before.
#[tokio::test(flavor = "multi_thread")]
async fn exchanged_payloads_are_never_served() {
    for read_before in [true, false] {
        let registry = TestRegistry::start().await;
        let client = registry.client();
        let blobs = [content(1, 9 << 20), content(2, 9 << 20)];
        for blob in &blobs {
            push_blob(&client, "a", blob).await;
        }
        let exchange = |data: &Path| {
            let [one, other] = &segments(data)[..] else {
                panic!("two segments")
            };
            let (mut first, mut second) = (fs::read(one).unwrap(), fs::read(other).unwrap());
            let frame = first.len() - 128;
            first[4096..frame].swap_with_slice(&mut second[4096..frame]);
            fs::write(one, first).unwrap();
            fs::write(other, second).unwrap();
        };
        let registry = registry.restart_after(exchange).await;
        let client = registry.client();
        for blob in &blobs {
            let path = format!("/v2/a/blobs/{}", sha256(blob));
            if read_before {
                client.get(&path).await.expect_error(500, "UNKNOWN");
                client.head(&path).await.expect(404);
            }
            push_blob(&client, "a", blob).await;
            assert!(client.get(&path).await.expect(200).body == *blob);
        }
    }
}

/// Guards: a push of stored content reads all of it before it drops the received bytes. So the first push of a blob or
/// manifest replaces rotted content, even if no read had found that.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_push_replaces_what_rotted_unread() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let (small, large) = (content(1, 100_000), content(2, 9 << 20));
    for blob in [&small, &large] {
        push_blob(&client, "a", blob).await;
    }
    push_image(&client, "a", "latest", &small).await;
    let rot = |data: &Path| {
        for path in segments(data) {
            let mut bytes = fs::read(&path).unwrap();
            if bytes.len() > large.len() {
                bytes[5 << 20..6 << 20].fill(0);
            } else {
                bytes.fill(0);
            }
            fs::write(&path, bytes).unwrap();
        }
    };
    let registry = registry.restart_after(rot).await;
    let client = registry.client();
    for blob in [&small, &large] {
        push_blob(&client, "a", blob).await;
        let path = format!("/v2/a/blobs/{}", sha256(blob));
        assert!(client.get(&path).await.expect(200).body == *blob);
    }
    push_image(&client, "a", "latest", &small).await;
    client.get("/v2/a/manifests/latest").await.expect(200);
}

/// Guards: damage after the first window aborts the answer, so that the client never takes it for whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_later_damage_is_aborted() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(2, 12 << 20);
    let digest = push_blob(&client, "a", &blob).await;
    let mut bad = blob.clone();
    let mark = b"a mark that occurs once in the content";
    bad[11 << 20..(11 << 20) + mark.len()].copy_from_slice(mark);
    let bad_digest = push_blob(&client, "a", &bad).await;
    damage(registry.store.path(), mark);
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let head = format!("GET /v2/a/blobs/{bad_digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // A reset is an end too.
    stream.read_to_end(&mut all).await.unwrap_or_default();
    assert!(all.starts_with(b"HTTP/1.1 200"));
    assert!(
        all.len() < bad.len(),
        "{} bytes of {} came",
        all.len(),
        bad.len()
    );
    client
        .get(&format!("/v2/a/blobs/{digest}"))
        .await
        .expect(200);
}

/// Guards: a client that stops sending inside a body, of any kind, gets 408 and no error about its content. It keeps
/// the bytes that an upload has received, and blocks no other client.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_get_408() {
    let options = ServerOptions {
        body_idle_timeout: Duration::from_millis(50),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    let location = begin(&client, "a").await;
    let whole = format!("/v2/a/blobs/uploads/?digest={}", sha256(b"0123456789"));
    for (method, path) in [
        ("PATCH", &*location),
        ("POST", &*whole),
        ("PUT", "/v2/a/manifests/t"),
    ] {
        let mut stream = TcpStream::connect(client.address()).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nContent-Length: 10\r\n\r\nabc"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let said = rest(stream).await;
        assert!(said.starts_with("HTTP/1.1 408"), "{method}: {said}");
        assert!(said.contains("connection: close"), "{method}: {said}");
    }
    assert_eq!(
        client.get(&location).await.expect(204).header("range"),
        "0-2"
    );
    client.patch(&location, "def").await.expect(202);
    client
        .put(&format!("{location}?digest={}", sha256(b"abcdef")), "")
        .await
        .expect(201);
}

/// Guards: an active request is answered after the server is told to stop; the listener closes at once.
#[tokio::test(flavor = "multi_thread")]
async fn active_requests_are_answered() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let digest = sha256(b"0123456789");
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    let stopping = tokio::spawn(registry.stop());
    // The listener closes first; from then on no connection is accepted.
    while TcpStream::connect(client.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"0123456789").await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert!(
        all.starts_with(b"HTTP/1.1 201"),
        "{:?}",
        String::from_utf8_lossy(&all)
    );
    stopping.await.unwrap();
}

/// Blocks a push until the test releases it.
#[derive(Debug)]
struct BlockingPolicy {
    began: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Policy for BlockingPolicy {
    fn decide<'a>(&'a self, _: &'a Caller, permission: Permission<'a>) -> Decision<'a, Verdict> {
        if matches!(permission, Permission::Push(_)) {
            self.began.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        Decision::Ready(Verdict::Granted)
    }
}

/// Guards: a push whose connection is cut at the end of the drain time still ends before the store closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_that_is_cut_off_ends_before_the_store_closes() {
    let (began, has_begun) = mpsc::channel();
    let (release, go_on) = mpsc::channel();
    let go_on = Mutex::new(go_on);
    let options = ServerOptions {
        drain: Duration::ZERO,
        policy: Arc::new(BlockingPolicy { began, go_on }),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let digest = sha256(b"");
    let mut stream = TcpStream::connect(registry.client().address())
        .await
        .unwrap();
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap())
        .await
        .unwrap();
    let mut restarting = std::pin::pin!(registry.restart());
    let early = tokio::time::timeout(Duration::from_millis(300), &mut restarting).await;
    assert!(early.is_err(), "the store was closed under a push");
    release.send(()).unwrap();
    let registry = restarting.await;
    let path = format!("/v2/a/blobs/{digest}");
    registry.client().get(&path).await.expect(200);
}
