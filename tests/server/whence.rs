//! The origin of content: what a push records, and which digests lead back to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, header};
use serde_json::{Value, json};
use tonnage_server::ServerOptions;
use tonnage_server::access::{
    Authenticator, Caller, Challenge, ConnectionFacts, Decision, Permission, Provenance, Refused,
};
use tonnage_server::admin::{
    AdminAnswer, AdminRequest, ContentOrigin, OpenStore, PushRecord, Whence, execute,
};
use tonnage_tests::client::{Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{INDEX, LAYER, MANIFEST, descriptor, push_blob, push_layers, sha256};

const ISSUER: &str = "https://ci.example";

/// Believes the header: `NAME` is a person, `NAME RUN` a build with the claim `run_id`.
#[derive(Debug)]
struct Believing;

impl Authenticator for Believing {
    fn authenticate<'a>(
        &'a self,
        head: &'a Parts,
        _: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>> {
        let given = head.headers.get(header::AUTHORIZATION);
        let given = given.map_or("", |value| value.to_str().expect("ASCII"));
        let (name, run) = given.split_once(' ').unwrap_or((given, ""));
        let claims = BTreeMap::from([("run_id".to_owned(), run.to_owned())]);
        let build = || Provenance::new(ISSUER.into(), format!("job of {name}"), claims);
        Decision::Ready(Ok(Caller {
            subject: name.to_owned(),
            provenance: (!run.is_empty()).then(|| Arc::new(build())),
            ..Caller::default()
        }))
    }

    fn challenge(&self, _: Permission<'_>) -> Challenge {
        Challenge(HeaderValue::from_static("Basic"))
    }
}

async fn start() -> TestRegistry {
    TestRegistry::with(ServerOptions {
        authenticator: Arc::new(Believing),
        ..ServerOptions::default()
    })
    .await
}

/// Puts a manifest by its digest.
async fn put(client: Client, name: &str, manifest: Value, by: &str) {
    let text = manifest.to_string();
    let path = format!("/v2/{name}/manifests/{}", sha256(text.as_bytes()));
    let call = client
        .call(Method::PUT, &path)
        .header("content-type", manifest["mediaType"].as_str().unwrap())
        .header("authorization", by)
        .header("x-request-id", format!("of-{}", by.replace(' ', "-")));
    call.body(whole(text)).send().await.expect(201);
}

async fn whence(registry: &TestRegistry, content: &[u8]) -> ContentOrigin {
    let digest = sha256(content).to_string();
    let store = OpenStore::new(registry.store.clone());
    let answer = execute(&store, AdminRequest::Whence(Whence { digest })).await;
    match answer.expect("a sound store") {
        AdminAnswer::Whence(origin) => origin,
        other => panic!("{other:?}"),
    }
}

/// Returns who pushed, and the run of a build.
fn pusher(push: Option<&PushRecord>) -> String {
    let push = push.expect("a record");
    let run = push.provenance.as_ref().map(|provenance| {
        assert_eq!(provenance.issuer(), ISSUER);
        assert_eq!(provenance.subject(), format!("job of {}", push.by));
        format!(" {}", provenance.claims()["run_id"])
    });
    let by = format!("{}{}", push.by, run.unwrap_or_default());
    assert_eq!(push.request, format!("of-{}", by.replace(' ', "-")));
    by
}

/// Returns the manifests of an answer: repository, digest, who pushed it.
fn pushers(origin: &ContentOrigin) -> Vec<String> {
    assert!(origin.stored && !origin.more_manifests && !origin.more_repositories);
    let manifests = origin.manifests.iter();
    let one = manifests.map(|manifest| {
        let by = pusher(manifest.pushed.as_ref());
        format!("{} {} {by}", manifest.repository, manifest.digest)
    });
    one.collect()
}

/// Guards: layer, config, child of an index and the index itself lead to the pushes that entered the manifests which
/// have them, in each repository, also after a restart. A blob without a manifest, and content that the store does not
/// have, are told apart.
#[tokio::test(flavor = "multi_thread")]
async fn content_leads_back_to_its_build() {
    let registry = start().await;
    let client = registry.client();
    let image = push_layers(&client, "a", &[b"layer"]).await;
    let text = image.to_string();
    put(client, "a", image.clone(), "ci 7").await;
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, text.as_bytes())],
    });
    put(client, "a", index.clone(), "alice").await;
    push_layers(&client, "b", &[b"layer"]).await;
    put(client, "b", image, "").await;
    push_blob(&client, "c", b"layer").await;
    push_blob(&client, "c", b"alone").await;

    let registry = registry.restart().await;
    let image = sha256(text.as_bytes());
    let of_index = format!("a {} alice", sha256(index.to_string().as_bytes()));
    let all = [format!("a {image} ci 7"), format!("b {image} "), of_index];
    for content in [&b"layer"[..], b"{}", text.as_bytes()] {
        let mut found = pushers(&whence(&registry, content).await);
        // Those that are the content or list it come first.
        assert_eq!(found.pop().as_ref(), all.last());
        found.sort();
        assert_eq!(found, all[..2]);
    }
    let origin = whence(&registry, index.to_string().as_bytes()).await;
    assert_eq!(pushers(&origin), all[2..]);
    let layer = whence(&registry, b"layer").await;
    assert_eq!(layer.repositories, ["a", "b", "c"]);
    let alone = whence(&registry, b"alone").await;
    assert!(alone.stored && alone.manifests.is_empty() && alone.repositories == ["c"]);
    let unknown = whence(&registry, b"unknown").await;
    assert!(!unknown.stored && unknown.manifests.is_empty() && unknown.repositories.is_empty());
    registry.stop().await;
}

/// Guards: a manifest that is pushed again keeps the record of its first push, unless only the new push is of a build.
/// After its deletion, the next push is the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_again_keeps_the_record() {
    let registry = start().await;
    let client = registry.client();
    let image = push_layers(&client, "a", &[b"layer"]).await;
    let text = image.to_string();
    let path = format!("/v2/a/manifests/{}", sha256(text.as_bytes()));
    for (by, recorded) in [
        ("alice", "alice"),
        ("bob", "alice"),
        ("ci 7", "ci 7"),
        ("ci 8", "ci 7"),
        ("alice", "ci 7"),
    ] {
        put(client, "a", image.clone(), by).await;
        let origin = whence(&registry, text.as_bytes()).await;
        assert_eq!(
            pusher(origin.manifests[0].pushed.as_ref()),
            recorded,
            "{by}"
        );
        assert_eq!(client.get(&path).await.expect(200).body, text);
    }
    client.delete(&path).await.expect(202);
    put(client, "a", image.clone(), "bob").await;
    let origin = whence(&registry, text.as_bytes()).await;
    assert_eq!(pusher(origin.manifests[0].pushed.as_ref()), "bob");
    registry.stop().await;
}

/// Guards: pushes of the same manifest at the same time all succeed, although each would record itself. A build among
/// them is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_one_manifest_at_once() {
    let registry = start().await;
    let client = registry.client();
    for round in 0..10 {
        let image = push_layers(&client, "a", &[b"layer", &[round]]).await;
        let pushes = (0..16).map(|n| {
            let by = if n % 2 == 0 {
                format!("ci {n}")
            } else {
                "alice".to_owned()
            };
            let image = image.clone();
            tokio::spawn(async move { put(client, "a", image, &by).await })
        });
        for push in pushes.collect::<Vec<_>>() {
            push.await.unwrap();
        }
        let origin = whence(&registry, image.to_string().as_bytes()).await;
        let recorded = pusher(origin.manifests[0].pushed.as_ref());
        assert!(recorded.starts_with("ci "), "{recorded}");
    }
    registry.stop().await;
}

/// Guards: an answer is bounded where very many manifests share a layer, and a manifest has very many tags.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_bounded() {
    let registry = start().await;
    let client = registry.client();
    push_layers(&client, "a", &[b"shared"]).await;
    for n in 0..101 {
        let image = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("application/x", b"{}"),
            "layers": [descriptor(LAYER, b"shared")], "annotations": {"n": n.to_string()},
        });
        put(client, "a", image, "ci 7").await;
    }
    let origin = whence(&registry, b"shared").await;
    assert_eq!((origin.manifests.len(), origin.more_manifests), (100, true));
    let first = &origin.manifests[0];
    assert!(first.tags.is_empty() && !first.more_tags);
    let text = client
        .get(&format!("/v2/a/manifests/{}", first.digest))
        .await
        .expect(200)
        .body;
    for n in 0..21 {
        let call = client.call(Method::PUT, &format!("/v2/a/manifests/t{n:02}"));
        call.header("content-type", MANIFEST)
            .body(whole(text.clone()))
            .send()
            .await
            .expect(201);
    }
    let origin = whence(&registry, &text).await;
    let tagged = &origin.manifests[0];
    assert_eq!((tagged.tags.len(), tagged.more_tags), (20, true));
    assert_eq!(
        (tagged.tags[0].as_str(), tagged.tags[19].as_str()),
        ("t00", "t19")
    );
    registry.stop().await;
}
