//! Answers that are kept in memory while the catalog does not change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonnage_server::ServerOptions;
use tonnage_server::access::{Caller, Decision, Permission, Policy, Verdict};
use tonnage_tests::client::Client;
use tonnage_tests::http::Answer;
use tonnage_tests::registry::TestRegistry;

use crate::leases::Interfered;
use crate::{content, push_image, push_layers, put_manifest, sha256};

/// Returns the number of answers that were kept ones.
pub(crate) async fn kept(registry: &TestRegistry) -> u64 {
    let answer = registry.admin().get("/metrics").await.expect(200);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("registry_kept_answers_total "));
    count.expect("a count").parse().expect("a number")
}

/// Gets content often enough that its answer is kept, and returns what is the same in all answers.
async fn get_often(client: &Client, path: &str) -> (Vec<(String, String)>, Vec<u8>) {
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(parts(client.get(path).await.expect(200)));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{path}");
    seen.remove(0)
}

fn parts(answer: Answer) -> (Vec<(String, String)>, Vec<u8>) {
    let of_request = ["x-request-id", "date"];
    let fields = answer.headers.iter();
    let fields = fields.filter(|(name, _)| !of_request.contains(&name.as_str()));
    let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    fields.sort();
    (fields, answer.body.to_vec())
}

/// Guards: repeated GETs and HEADs of small content are answered from memory, as the first one was. Conditions and
/// ranges of a request still count. A tag that moves, and content that is deleted, are answered as they are from then
/// on.
#[tokio::test(flavor = "multi_thread")]
async fn kept_answers_follow_the_catalog() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let layer = content(1, 4096);
    let manifest = push_image(&client, "a", "latest", &layer).await;
    let by_tag = "/v2/a/manifests/latest".to_owned();
    let by_digest = format!("/v2/a/manifests/{manifest}");
    let blob = format!("/v2/a/blobs/{}", sha256(&layer));
    for path in [&by_tag, &by_digest, &blob] {
        let before = kept(&registry).await;
        let (fields, body) = get_often(&client, path).await;
        let heads = parts(client.head(path).await.expect(200));
        assert_eq!(heads, (fields.clone(), Vec::new()), "HEAD {path}");
        let over_h2 = client.call(http::Method::GET, path).send_h2().await;
        assert_eq!(parts(over_h2.expect(200)), (fields, body.clone()), "{path}");
        assert_eq!(kept(&registry).await - before, 4, "{path}");
        let call = client.call(http::Method::GET, path);
        let etag = client.get(path).await.header("etag").to_owned();
        call.header("if-none-match", etag).send().await.expect(304);
        let call = client.call(http::Method::GET, path);
        let part = call.header("range", "bytes=1-2").send().await.expect(206);
        assert_eq!(part.body, body[1..3], "{path}");
    }
    let other = push_layers(&client, "a", &[b"another layer"]).await;
    let other = put_manifest(&client, "a", "latest", &other).await;
    let moved = client.get(&by_tag).await.expect(200);
    assert_eq!(moved.header("docker-content-digest"), other.to_string());
    get_often(&client, &by_tag).await;
    for path in [&blob, &by_digest] {
        get_often(&client, path).await;
        client.delete(path).await.expect(202);
        client.get(path).await.expect(404);
        client.head(path).await.expect(404);
    }
}

/// Guards: content that is known to be damaged is not answered from memory.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_content_takes_the_whole_path() {
    let damaged = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&damaged);
    let registry = TestRegistry::wrapped(move |store, real| {
        Arc::new(Interfered {
            real,
            store: store.clone(),
            deleting: Arc::default(),
            watched: sha256(b""),
            held: Arc::default(),
            damaged: flag,
        })
    })
    .await;
    let client = registry.client();
    push_image(&client, "a", "latest", b"layer").await;
    let path = format!("/v2/a/blobs/{}", sha256(b"layer"));
    get_often(&client, &path).await;
    client.head(&path).await.expect(200);
    let before = kept(&registry).await;
    damaged.store(true, Ordering::SeqCst);
    client.head(&path).await.expect(404);
    // The real blob store reads it, and finds no damage.
    client.get(&path).await.expect(200);
    assert_eq!(kept(&registry).await, before);
}

/// Guards: a repository that is deleted and created again answers with its new content, and a body is kept up to 64
/// KiB, but no empty one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_small_and_of_its_repository() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let bodies = [0, 1, 64 << 10, (64 << 10) + 1].map(|bytes| content(3, bytes));
    let layers: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    let manifest = push_layers(&client, "a", &layers).await;
    let first = put_manifest(&client, "a", "latest", &manifest).await;
    let mut counts = Vec::new();
    for body in &bodies {
        let before = kept(&registry).await;
        let path = format!("/v2/a/blobs/{}", sha256(body));
        assert!(get_often(&client, &path).await.1 == *body);
        counts.push(kept(&registry).await - before);
    }
    assert_eq!(counts, [0, 2, 2, 0]);
    get_often(&client, "/v2/a/manifests/latest").await;
    client
        .delete(&format!("/v2/a/manifests/{first}"))
        .await
        .expect(202);
    client.get("/v2/a/manifests/latest").await.expect(404);
    let second = push_image(&client, "a", "latest", b"other").await;
    let answer = client.get("/v2/a/manifests/latest").await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), second.to_string());
}

/// Grants what the flag says, at once or after a wait.
#[derive(Debug)]
struct Switched {
    is_granted: Arc<AtomicBool>,
    waits: bool,
}

impl Policy for Switched {
    fn decide<'a>(&'a self, _: &'a Caller, _: Permission<'a>) -> Decision<'a, Verdict> {
        let verdict = match self.is_granted.load(Ordering::SeqCst) {
            true => Verdict::Granted,
            false => Verdict::Denied,
        };
        match self.waits {
            true => Decision::Pending(Box::pin(async move { verdict })),
            false => Decision::Ready(verdict),
        }
    }
}

/// Guards: permission is decided for each request, also where the answer is kept, and may be waited for.
#[tokio::test(flavor = "multi_thread")]
async fn kept_answers_need_permission() {
    for waits in [false, true] {
        permission_is_needed(waits).await;
    }
}

async fn permission_is_needed(waits: bool) {
    let granted = Arc::new(AtomicBool::new(true));
    let policy = Switched {
        is_granted: Arc::clone(&granted),
        waits,
    };
    let options = ServerOptions {
        policy: Arc::new(policy),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    push_image(&client, "a", "latest", b"layer").await;
    get_often(&client, "/v2/a/manifests/latest").await;
    assert_eq!(kept(&registry).await, 2, "{waits}");
    granted.store(false, Ordering::SeqCst);
    let answer = client.get("/v2/a/manifests/latest").await;
    answer.expect_error(403, "DENIED");
}

/// Guards: content that only a lease keeps is leased by each answer, so none of them is kept.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_lease_are_not_kept() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = crate::push_blob(&client, "a", b"not referenced").await;
    get_often(&client, &format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(kept(&registry).await, 0);
}
