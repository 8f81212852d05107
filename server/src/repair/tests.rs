//! Repairs of a real store from registries by a script.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tonnage_engine::{
    Algorithm, Change, ClientId, Digest, JobKind, Options, Origin, ScrubRequest, UploadClaim,
    UploadSpec,
};

use super::*;
use crate::outgoing::tests::peer::{After, Script, ScriptedPeer, response, whole};
use crate::outgoing::{PeerLimits, RegistryClient, RegistryCredentials, Secret};
use crate::registry::peer::ContentKind;
use crate::runtime;

const LENGTH: usize = 300_000;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

/// Pushes `content` into the repository `a`.
async fn push(store: &Store, content: &[u8]) -> Digest {
    let digest = Digest::of(Algorithm::Sha256, content);
    let spec = UploadSpec {
        repository: "a".to_owned(),
        ..UploadSpec::default()
    };
    let id = store.begin_upload(spec).unwrap();
    let mut upload = store
        .open_upload(id, "a", UploadClaim::default())
        .await
        .unwrap();
    upload.write(Bytes::copy_from_slice(content)).await.unwrap();
    let batch = tonnage_engine::Batch {
        repository: "a".to_owned(),
        create_repository: true,
        requires: Vec::new(),
        staged: vec![upload.finish(digest, None).await.unwrap()],
        changes: vec![Change::Link(digest)],
        origin: Origin::default(),
    };
    store.commit(batch).await.unwrap();
    digest
}

async fn open(path: &Path) -> Store {
    let options = Options {
        scrub_bytes_per_second: 0,
        free_space_min_bytes: Some(0),
        ..Options::default()
    };
    Store::open(runtime::env().unwrap(), path, options)
        .await
        .unwrap()
        .0
}

/// Creates a store in which the blob of [`content`] is damaged.
async fn damaged_store(path: &Path) -> (Store, Digest) {
    let store = open(path).await;
    let digest = push(&store, &content()).await;
    store.close().await.unwrap();
    drop(store);
    for segment in std::fs::read_dir(path.join("segments")).unwrap() {
        let mut options = std::fs::File::options();
        let path = segment.unwrap().path();
        let file = options.read(true).write(true).open(path).unwrap();
        // The segment of this blob begins with it.
        let (mut bytes, content) = (vec![0; 64 << 10], content());
        file.read_at(&mut bytes, 0).unwrap();
        let place = bytes.windows(500).position(|part| part == &content[..500]);
        if let Some(place) = place {
            file.write_all_at(&[99], place as u64 + 200_000).unwrap();
        }
    }
    let store = open(path).await;
    let found = store.scrub(ScrubRequest::default()).await.unwrap();
    assert_eq!(found.damaged, 1);
    (store, digest)
}

async fn client(address: &str) -> RegistryClient {
    let limits = PeerLimits {
        connect: Duration::from_secs(5),
        head: Duration::from_millis(500),
        period: Duration::from_millis(200),
        bytes_per_period: 1 << 20,
    };
    let credentials = RegistryCredentials {
        username: "user".to_owned(),
        password: Secret::new("secret".to_owned()),
    };
    let credentials = (!address.contains("anonymous")).then_some(credentials);
    let address = address.parse().unwrap();
    let client = RegistryClient::with_limits(address, credentials, None, limits);
    client.await.unwrap()
}

/// Repairs the store from `address`, at a rate. Returns its report.
async fn repair(store: &Store, address: &str, rate: u64) -> RepairReport {
    let (client, report) = (Arc::new(client(address).await), Mutex::default());
    let job = store.begin_job(JobKind::Repair);
    let ended = super::repair(store.clone(), client, job, rate, &report);
    ended.await.unwrap();
    report.into_inner()
}

/// Returns the only reason why the only blob was not healed.
fn reason(report: &RepairReport) -> String {
    assert_eq!((report.healed, report.left, report.listed.len()), (0, 1, 1));
    match &report.listed[0].outcome {
        BlobOutcome::Left(refusals) if refusals.len() == 1 => refusals[0].1.to_string(),
        outcome @ (BlobOutcome::Left(_) | BlobOutcome::Healed(_)) => panic!("{outcome:?}"),
    }
}

fn close(answer: Vec<u8>) -> (Vec<u8>, After) {
    (answer, After::Close)
}

fn chunked(length: usize) -> Vec<u8> {
    let body = [
        format!("{length:x}\r\n").as_bytes(),
        &vec![1; length],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    response(200, "Transfer-Encoding: chunked\r\n", &body)
}

fn challenge(value: &str) -> (Vec<u8>, After) {
    close(response(
        401,
        &format!("WWW-Authenticate: {value}\r\nContent-Length: 0\r\n"),
        b"",
    ))
}

fn redirect(to: &str) -> (Vec<u8>, After) {
    close(response(
        307,
        &format!("Location: {to}\r\nContent-Length: 0\r\n"),
        b"",
    ))
}

/// Returns the port that a request names in its `Host` field.
fn port_of(head: &str) -> &str {
    let host = head.lines().find(|line| line.starts_with("host:")).unwrap();
    host.rsplit(':').next().unwrap().trim()
}

/// A registry that does not heal: a path before the repositories, why it is no help, and what it does.
type BadPeer = (&'static str, &'static str, Arc<Script>);

fn bad(
    name: &'static str,
    why: &'static str,
    script: impl Fn(&str) -> (Vec<u8>, After) + Send + Sync + 'static,
) -> BadPeer {
    (name, why, Arc::new(script))
}

fn announced(length: usize, body: usize) -> Vec<u8> {
    response(
        200,
        &format!("Content-Length: {length}\r\n"),
        &vec![1; body],
    )
}

fn empty(status: u16) -> (Vec<u8>, After) {
    close(response(status, "Content-Length: 0\r\n", b""))
}

/// Registries that send the wrong content, or none.
fn bad_content() -> Vec<BadPeer> {
    let (few, many) = ("it has 9 bytes for it instead of 300000", LENGTH + 9);
    vec![
        bad("other", "it sent content that is sha256:", |_| {
            close(whole(&[1; LENGTH]))
        }),
        bad("short", few, |_| close(announced(9, 9))),
        bad("long", "it has 300009 bytes", move |_| {
            close(announced(many, many))
        }),
        bad("broken", "its answer broke off", |_| {
            close(announced(LENGTH, 9))
        }),
        bad("chunked-short", few, |_| close(chunked(9))),
        bad(
            "chunked-long",
            "bytes for it instead of 300000",
            move |_| close(chunked(many)),
        ),
        bad("missing", "(404)", |_| empty(404)),
        bad("failing", "it answered 500", |_| empty(500)),
        bad("partial", "it answered 206", |_| {
            close(response(206, "", &content()))
        }),
        bad("silent", "no answer in 0.5 s", |_| {
            (Vec::new(), After::Stall)
        }),
        bad("stalled", "it sends too slowly", |_| {
            (announced(LENGTH, 9), After::Stall)
        }),
        bad("garbage", "it cannot be reached", |_| {
            close(b"hello\r\n\r\n".to_vec())
        }),
    ]
}

/// Registries that ask for credentials in vain, or lead elsewhere.
fn bad_directions() -> Vec<BadPeer> {
    let token_of = |host: &str, head: &str| {
        let port = port_of(head);
        challenge(&format!(r#"Bearer realm="http://{host}:{port}/token""#))
    };
    let basic = |_: &str| challenge("Basic realm=x");
    vec![
        bad("anonymous", "it requires a user name and a password", basic),
        bad("wrong-password", "it denies access: 401", basic),
        bad(
            "unclear",
            "without a challenge that can be answered",
            |_| challenge("Negotiate"),
        ),
        bad("token-thief", "is another host without TLS", move |head| {
            token_of("127.0.0.2", head)
        }),
        bad("token-page", "sent no usable token", move |head| {
            if head.starts_with("get /token?") {
                return close(whole(b"<html>"));
            }
            token_of("127.0.0.1", head)
        }),
        bad("redirect-thief", "it denies access: 401", |head| {
            if head.contains("host: 127.0.0.1") && head.contains("authorization") {
                return redirect(&format!("http://127.0.0.2:{}/x", port_of(head)));
            }
            challenge("Basic")
        }),
        bad("loop", "more than 5 times", |_| redirect("/again")),
        bad("file", "something that is not a URL", |_| {
            redirect("file:///etc/passwd")
        }),
    ]
}

/// Guards: whatever a peer does, it heals nothing but with the content, and ends with its reason; the damaged blob
/// stays damaged, no upload is left, and no credentials go to another host.
#[tokio::test]
async fn bad_peers_heal_nothing_and_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, digest) = damaged_store(directory.path()).await;
    for (name, why, script) in bad_content().into_iter().chain(bad_directions()) {
        let peer = ScriptedPeer::start(script).await;
        let address = format!("http://127.0.0.1:{}/{name}", peer.port);
        let report = repair(&store, &address, 0).await;
        let reason = reason(&report);
        assert!(reason.contains(why), "{name}: {reason}");
        assert!(store.is_damaged(&digest).await.unwrap(), "{name}");
        assert_eq!(store.stats().await.unwrap().uploads, 0, "{name}");
        let heads = peer.heads.lock();
        assert!(!heads.is_empty(), "{name}");
        for head in heads.iter().filter(|head| head.contains("host: 127.0.0.2")) {
            assert!(!head.contains("authorization"), "{name}: {head}");
        }
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for scheme in ["http", "https"] {
        let report = repair(&store, &format!("{scheme}://127.0.0.1:{port}"), 0).await;
        assert!(reason(&report).contains("it cannot be reached"));
    }
    assert!(store.jobs().is_empty());
}

/// Guards: a registry that asks for a token, under a path, and redirects to another host heals the blob; the token goes
/// to no other host than the registry, and the password only to the server of tokens. The rate holds.
#[tokio::test]
async fn a_token_and_a_redirect_lead_to_the_content() {
    let directory = tempfile::tempdir().unwrap();
    let (store, digest) = damaged_store(directory.path()).await;
    let path = format!("get /v2/pre/fix/a/blobs/{digest}");
    let script = move |head: &str| {
        let port = port_of(head);
        if head.contains("host: 127.0.0.2") {
            return close(whole(&content()));
        }
        if head.starts_with("get /token?service=s&scope=repository%3apre%2ffix%2fa%3apull ") {
            assert!(head.contains("authorization: basic "), "{head}");
            return close(whole(br#"{"access_token":"T0"}"#));
        }
        assert!(head.starts_with(&path), "{head}");
        if head.contains("authorization: bearer t0") {
            return redirect(&format!("http://127.0.0.2:{port}/signed?x=y"));
        }
        let realm = format!("http://127.0.0.1:{port}/token");
        challenge(&format!(
            r#"Bearer realm="{realm}",service="s",scope="repository:pre/fix/a:pull""#
        ))
    };
    let peer = ScriptedPeer::start(Arc::new(script)).await;
    let (address, begun) = (
        format!("http://127.0.0.1:{}/pre/fix", peer.port),
        Instant::now(),
    );
    let report = repair(&store, &address, 4 * LENGTH as u64).await;
    assert!(begun.elapsed() >= Duration::from_millis(240));
    assert_eq!((report.healed, report.left), (1, 0), "{report:?}");
    let heads = peer.heads.lock().join("");
    let signed = heads
        .split("get ")
        .find(|head| head.starts_with("/signed"))
        .unwrap();
    assert!(!signed.contains("authorization"), "{signed}");
    assert!(!store.is_damaged(&digest).await.unwrap());
    let found = store.view().blob(&digest).unwrap().unwrap();
    let reader = store
        .open_found(&digest, &found, ClientId(0))
        .await
        .unwrap()
        .unwrap();
    let bytes: Vec<Bytes> = reader
        .read(0..found.length)
        .into_stream()
        .try_collect()
        .await
        .unwrap();
    assert!(bytes.concat() == content());
}

/// Guards: a cancelled repair ends at once, also while it waits for its peer; so does one whose store closes.
#[tokio::test]
async fn a_waiting_repair_can_be_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (store, digest) = damaged_store(directory.path()).await;
    let answer = response(200, &format!("Content-Length: {LENGTH}\r\n"), &[1; 9]);
    let asked = Arc::new(tokio::sync::Notify::new());
    let noticed = Arc::clone(&asked);
    let script = move |_: &str| {
        noticed.notify_one();
        (answer.clone(), After::Stall)
    };
    let peer = ScriptedPeer::start(Arc::new(script)).await;
    let address = format!("http://127.0.0.1:{}", peer.port).parse().unwrap();
    let client = Arc::new(RegistryClient::new(address, None, None).await.unwrap());
    let start = || {
        let (store, client): (_, Arc<dyn Peer>) = (store.clone(), Arc::clone(&client) as _);
        let job = store.begin_job(JobKind::Repair);
        let id = job.id();
        let report = Mutex::default();
        let work = async move { super::repair(store, client, job, 0, &report).await };
        (id, tokio::spawn(work))
    };
    let (job, first) = start();
    asked.notified().await;
    assert!(store.control_job(job, tonnage_engine::JobControl::Cancel));
    let ended = first.await.unwrap();
    assert!(matches!(ended, Err(RepairError::Store(Error::Cancelled))));
    let (_, second) = start();
    asked.notified().await;
    store.close().await.unwrap();
    let ended = second.await.unwrap();
    assert!(matches!(ended, Err(RepairError::Store(Error::Closed))));
    assert!(store.is_damaged(&digest).await.unwrap());
}

/// Guards: a peer that cannot be reached or stalls for 5 blobs in a row ends the repair. A blob for which it was not
/// asked is not counted and interrupts nothing; one for which it answered begins the count again.
#[test]
fn a_lost_peer_is_counted() {
    let left = |whys: &[PeerError]| {
        let place = Place {
            repository: "a".to_owned(),
            kind: ContentKind::Blob,
        };
        let refused = |why: &PeerError| (place.clone(), why.clone().into());
        BlobOutcome::Left(whys.iter().map(refused).collect())
    };
    let stalled = || left(&[PeerError::NotFound, PeerError::TooSlow]);
    let unreachable = || left(&[PeerError::Unreachable(String::new())]);
    let not_asked = || [left(&[]), BlobOutcome::Healed(HealedFrom::Others)];
    let mut lost = LostInARow::default();
    let mut goes_on = |outcome| lost.count(&outcome).is_ok();
    for answered in [
        left(&[PeerError::NotFound]),
        left(&[PeerError::Status(500)]),
    ] {
        for outcome in [stalled(), unreachable(), stalled(), unreachable()] {
            assert!(goes_on(outcome));
            assert!(not_asked().into_iter().all(&mut goes_on));
        }
        assert!(goes_on(answered));
    }
    assert!((1..LOST_MAX).all(|_| goes_on(stalled())));
    assert!(!goes_on(unreachable()));
}
