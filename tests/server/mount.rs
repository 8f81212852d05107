//! Mounts of blobs from other repositories.

use std::sync::Arc;

use tonnage_server::ServerOptions;
use tonnage_server::access::{Caller, Decision, Permission, Policy, Verdict};
use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{push_blob, sha256};

/// Guards: spec, "Mounting a blob from another repository" (end-11): 201 with a Location if the mount succeeds, else
/// 202 with a session, with `from` and without.
#[tokio::test(flavor = "multi_thread")]
async fn mounts() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    for (name, query) in [
        ("b", "&from=a"),
        ("c", ""),
        ("a", "&from=nowhere"),
        ("d", "&from=a&origin=x"),
    ] {
        let answer = client
            .post(&format!("/v2/{name}/blobs/uploads/?mount={digest}{query}"))
            .await
            .expect(201);
        assert_eq!(
            answer.header("location"),
            format!("/v2/{name}/blobs/{digest}")
        );
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(
            &client.get(answer.header("location")).await.expect(200).body[..],
            b"content"
        );
    }
    let missing = sha256(b"missing");
    for (mount, query) in [
        (digest, "&from=nowhere"),
        (digest, "&from=BAD"),
        (missing, ""),
        (missing, "&from=a"),
    ] {
        let answer = client
            .post(&format!("/v2/e/blobs/uploads/?mount={mount}{query}"))
            .await
            .expect(202);
        let location = answer.header("location");
        let close = format!("{location}?digest={}", sha256(b"uploaded"));
        client.put(&close, "uploaded").await.expect(201);
    }
    client
        .get(&format!("/v2/e/blobs/{digest}"))
        .await
        .expect_error(404, "BLOB_UNKNOWN");
    client
        .post("/v2/e/blobs/uploads/?mount=bad")
        .await
        .expect(202);
}

#[derive(Debug)]
struct SecretIsSecret;

impl Policy for SecretIsSecret {
    fn decide<'a>(&'a self, _: &'a Caller, permission: Permission<'a>) -> Decision<'a, Verdict> {
        Decision::Ready(match permission {
            Permission::Pull(name) if name.as_str().starts_with("secret") => Verdict::Denied,
            _ => Verdict::Granted,
        })
    }
}

/// Guards: a blob that the caller may not read cannot be mounted. The answer is a plain 202 that reveals nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_mounted_from_unreadable_repositories() {
    let options = ServerOptions {
        policy: Arc::new(SecretIsSecret),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    let digest = push_blob(&client, "secret/a", b"content").await;
    client
        .get(&format!("/v2/secret/a/blobs/{digest}"))
        .await
        .expect_error(403, "DENIED");
    for query in ["&from=secret/a", ""] {
        client
            .post(&format!("/v2/b/blobs/uploads/?mount={digest}{query}"))
            .await
            .expect(202);
    }
    client
        .head(&format!("/v2/b/blobs/{digest}"))
        .await
        .expect(404);
    push_blob(&client, "open", b"content").await;
    client
        .post(&format!("/v2/b/blobs/uploads/?mount={digest}"))
        .await
        .expect(201);
}

/// Guards: no answer about content that several repositories share names another one of them, or where it is stored.
#[tokio::test(flavor = "multi_thread")]
async fn answers_name_no_other_repository() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "confidential", b"content").await;
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=confidential");
    let mut answers = vec![client.post(&mount).await.expect(201)];
    let path = format!("/v2/b/blobs/{digest}");
    answers.push(client.get(&path).await.expect(200));
    answers.push(client.head(&path).await.expect(200));
    let part = client
        .call(http::Method::GET, &path)
        .header("range", "bytes=1-2");
    answers.push(part.send().await.expect(206));
    answers.push(push_again(&client, "b", b"content").await);
    answers.push(client.delete(&path).await.expect(202));
    answers.push(client.get(&path).await.expect(404));
    for answer in answers {
        let seen = format!("{:?} {:?}", answer.headers, answer.body);
        for word in ["confidential", "segment"] {
            assert!(!seen.contains(word), "{word} in {seen}");
        }
    }
}

/// Pushes content that is stored already.
async fn push_again(client: &Client, name: &str, content: &'static [u8]) -> Answer {
    let path = format!("/v2/{name}/blobs/uploads/?digest={}", sha256(content));
    let call = client.call(http::Method::POST, &path).body(whole(content));
    call.send().await.expect(201)
}
