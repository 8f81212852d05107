//! Pushing and pulling manifests.

use http::Method;
use serde_json::{Value, json};
use tonnage_engine::{Algorithm, Digest};
use tonnage_tests::client::{Answer, Client, chunked, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{
    INDEX, LAYER, MANIFEST, content, descriptor, push_blob, push_image, push_layers, put_manifest,
    sha256,
};

async fn put(client: &Client, path: &str, media_type: &str, text: &str) -> Answer {
    let call = client
        .call(Method::PUT, path)
        .header("content-type", media_type);
    call.body(whole(text.to_owned())).send().await
}

/// Guards: spec, "Pushing Manifests" (end-7a) and "Pulling manifests" (end-3): bytes and type are returned exactly, by
/// tag and digest, whatever Accept is. A chunked body without a length is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_come_back_exactly() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let manifest = push_layers(&client, "a", &[b"one", b"two"]).await;
    let text = format!(
        "\n  {}\t\n",
        serde_json::to_string_pretty(&manifest).unwrap()
    );
    let digest = sha256(text.as_bytes());
    let call = client.call(Method::PUT, "/v2/a/manifests/latest");
    let call = call.header("content-type", format!("{MANIFEST}; charset=utf-8"));
    let answer = call
        .body(chunked(vec![text.clone().into()]))
        .send()
        .await
        .expect(201);
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(
        answer.header("location"),
        format!("/v2/a/manifests/{digest}")
    );
    assert!(answer.lacks("oci-subject"));
    for reference in ["latest".to_owned(), digest.to_string()] {
        let path = format!("/v2/a/manifests/{reference}");
        for accept in ["*/*", INDEX, "text/html;q=0.1"] {
            let answer = client
                .call(Method::GET, &path)
                .header("accept", accept)
                .send()
                .await
                .expect(200);
            assert_eq!(answer.body, text);
            assert_eq!(answer.header("content-type"), MANIFEST);
            let answer = client
                .call(Method::HEAD, &path)
                .header("accept", accept)
                .send()
                .await
                .expect(200);
            assert_eq!(answer.header("content-type"), MANIFEST);
            assert_eq!(answer.header("content-length"), text.len().to_string());
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        }
    }
    let call = client.call(Method::GET, "/v2/a/manifests/latest");
    call.header("if-none-match", format!("\"{digest}\""))
        .send()
        .await
        .expect(304);
}

/// Guards: spec, "Pushing Manifests": the children of a manifest must exist; MANIFEST_BLOB_UNKNOWN names each missing
/// one. Nondistributable layers may be missing. Index entries may be manifests or blobs.
#[tokio::test(flavor = "multi_thread")]
async fn children_must_exist() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut manifest = push_layers(&client, "a", &[b"one"]).await;
    push_blob(&client, "b", b"two").await;
    manifest["layers"]
        .as_array_mut()
        .unwrap()
        .extend([descriptor(LAYER, b"two"), descriptor(LAYER, b"three")]);
    let answer = put(
        &client,
        "/v2/a/manifests/x",
        MANIFEST,
        &manifest.to_string(),
    )
    .await;
    let answer = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let errors = answer.json();
    let missing: Vec<&Value> = errors["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["detail"]["digest"])
        .collect();
    assert_eq!(
        missing,
        [
            &json!(sha256(b"two").to_string()),
            &json!(sha256(b"three").to_string())
        ]
    );
    client
        .get("/v2/a/manifests/x")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");

    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    manifest["layers"] = json!([descriptor(LAYER, b"one"), descriptor(foreign, b"nowhere")]);
    let child = put_manifest(&client, "a", "x", &manifest).await;
    let entry = json!({"mediaType": MANIFEST, "digest": child.to_string(), "size": manifest.to_string().len()});
    let index =
        |entries: Value| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    put_manifest(&client, "a", "empty", &index(json!([]))).await;
    put_manifest(&client, "a", "index", &index(json!([entry]))).await;
    put_manifest(
        &client,
        "a",
        "cache",
        &index(json!([descriptor(LAYER, b"one")])),
    )
    .await;
    let text = index(json!([entry])).to_string();
    put(&client, "/v2/b/manifests/index", INDEX, &text)
        .await
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
}

/// Guards: children must be where clients look for them: an entry with a manifest's type among the manifests, layers
/// and configs among the blobs. The first message names the first missing child, because some clients show nothing
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn children_must_be_where_clients_look() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let image = push_layers(&client, "a", &[b"one"]).await;
    let text = image.to_string();
    let digest = push_blob(&client, "a", text.as_bytes()).await;
    let index = |media_type: &str| {
        let entries = [descriptor(media_type, text.as_bytes())];
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
    };
    let path = "/v2/a/manifests/x";
    for media_type in [MANIFEST, &MANIFEST.to_uppercase(), INDEX] {
        let answer = put(&client, path, INDEX, &index(media_type)).await;
        let errors = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN").json();
        let message = errors["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(&digest.to_string()), "{message}");
        assert!(message.contains("no manifest"), "{message}");
    }
    put(&client, path, INDEX, &index(LAYER)).await.expect(201);
    put_manifest(&client, "a", "t", &image).await;
    put(&client, path, INDEX, &index(MANIFEST))
        .await
        .expect(201);

    client
        .delete(&format!("/v2/a/blobs/{digest}"))
        .await
        .expect(202);
    put(&client, path, INDEX, &index(LAYER))
        .await
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let mut over = image.clone();
    over["layers"] = json!([descriptor("application/vnd.x", text.as_bytes())]);
    let answer = put(&client, path, MANIFEST, &over.to_string()).await;
    let errors = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN").json();
    let message = errors["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("no blob"), "{message}");
    // Clients that go by the type pull this one as a manifest.
    over["layers"] = json!([descriptor(MANIFEST, text.as_bytes())]);
    put(&client, path, MANIFEST, &over.to_string())
        .await
        .expect(201);
}

/// Guards: a manifest keeps its media type while its repository has it; a push under another type is rejected, and the
/// error names the stored type. Other repositories have types of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_type_never_changes() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut image = push_layers(&client, "a", &[b"one"]).await;
    push_layers(&client, "b", &[b"one"]).await;
    image.as_object_mut().unwrap().remove("mediaType");
    let text = image.to_string();
    let digest = sha256(text.as_bytes());
    put(&client, "/v2/a/manifests/t", MANIFEST, &text)
        .await
        .expect(201);
    for reference in ["t", "u", &digest.to_string()] {
        let path = format!("/v2/a/manifests/{reference}");
        let answer = put(&client, &path, DOCKER, &text).await;
        let errors = answer.expect_error(400, "MANIFEST_INVALID").json();
        let message = errors["errors"][0]["message"].as_str().unwrap();
        assert!(
            message.contains(MANIFEST) && message.contains(&digest.to_string()),
            "{message}"
        );
    }
    client.head("/v2/a/manifests/u").await.expect(404);
    let upper = MANIFEST.to_uppercase();
    put(&client, "/v2/a/manifests/v", &upper, &text)
        .await
        .expect(201);
    for reference in ["t", "v", &digest.to_string()] {
        let answer = client
            .head(&format!("/v2/a/manifests/{reference}"))
            .await
            .expect(200);
        assert_eq!(answer.header("content-type"), MANIFEST);
    }
    put(&client, "/v2/b/manifests/t", DOCKER, &text)
        .await
        .expect(201);
    let answer = client.get("/v2/b/manifests/t").await.expect(200);
    assert_eq!(answer.header("content-type"), DOCKER);
    client
        .delete(&format!("/v2/a/manifests/{digest}"))
        .await
        .expect(202);
    put(&client, "/v2/a/manifests/t", DOCKER, &text)
        .await
        .expect(201);
}

/// Guards: the same for concurrent pushes: one type is stored, and every answer agrees with it.
#[tokio::test(flavor = "multi_thread")]
async fn types_do_not_race() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for round in 0..20 {
        let layer = format!("layer {round}");
        let mut image = push_layers(&client, "a", &[layer.as_bytes()]).await;
        image.as_object_mut().unwrap().remove("mediaType");
        let text = image.to_string();
        let path = format!("/v2/a/manifests/{}", sha256(text.as_bytes()));
        let push = |media_type| put(&client, &path, media_type, &text);
        let types = [MANIFEST, DOCKER, MANIFEST, DOCKER];
        let answers = futures_util::future::join_all(types.map(push)).await;
        let stored = client.head(&path).await.expect(200);
        for (media_type, answer) in types.into_iter().zip(answers) {
            let right = stored.header("content-type") == media_type;
            answer.expect(if right { 201 } else { 400 });
        }
    }
}

/// Guards: content that is no manifest is rejected, whatever its type. A type that the document does not repeat must be
/// one of the known ones. A type that a browser runs is rejected.
#[tokio::test(flavor = "multi_thread")]
async fn types_are_confirmed_by_the_document() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let image = push_layers(&client, "a", &[b"one"]).await;
    let as_type = |media_type: &str| {
        let mut image = image.clone();
        image["mediaType"] = json!(media_type);
        image.to_string()
    };
    let mut silent = image.clone();
    silent.as_object_mut().unwrap().remove("mediaType");
    let path = "/v2/a/manifests/x";
    for media_type in [
        "text/html",
        "image/svg+xml",
        "application/xhtml+xml",
        "application/pdf",
    ] {
        for text in [&silent.to_string(), &as_type(media_type), "<script>", "{}"] {
            let answer = put(&client, path, media_type, text).await;
            answer.expect_error(400, "MANIFEST_INVALID");
        }
    }
    for media_type in [
        "application/json",
        "application/octet-stream",
        "application/vnd.x+json",
    ] {
        let answer = put(&client, path, media_type, &silent.to_string()).await;
        answer.expect_error(400, "MANIFEST_INVALID");
    }
    let call = client
        .call(Method::PUT, path)
        .header("content-type", MANIFEST);
    let twice = call
        .header("content-type", INDEX)
        .body(whole(silent.to_string()));
    twice.send().await.expect_error(400, "MANIFEST_INVALID");
    let own = "application/vnd.x+json";
    for body in [
        "{}",
        "7",
        "{\"mediaType\":\"application/vnd.x+json\",\"schemaVersion\":2}",
    ] {
        for media_type in [MANIFEST, INDEX, own] {
            let answer = put(&client, path, media_type, body).await;
            answer.expect_error(400, "MANIFEST_INVALID");
        }
    }
    client.head(path).await.expect(404);
    put(&client, path, own, &as_type(own)).await.expect(201);
    let call = client.call(Method::PUT, path);
    call.body(whole(silent.to_string()))
        .send()
        .await
        .expect(201);
    let answer = client.head(path).await.expect(200);
    assert_eq!(answer.header("content-type"), MANIFEST);
}

/// Guards: null is accepted where Go writes it for an empty list. Limits hold however a value is escaped, and no
/// manifest causes a 500.
#[tokio::test(flavor = "multi_thread")]
async fn null_lists_and_long_escapes() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut image = push_layers(&client, "a", &[b"one"]).await;
    for key in ["layers", "annotations", "subject", "manifests"] {
        let mut image = image.clone();
        image[key] = Value::Null;
        put_manifest(&client, "a", "t", &image).await;
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": null});
    put_manifest(&client, "a", "t", &index).await;
    image["artifactType"] = json!("\u{1}".repeat(1024));
    let answer = put(&client, "/v2/a/manifests/x", MANIFEST, &image.to_string()).await;
    answer.expect_error(400, "MANIFEST_INVALID");
}

/// Guards: documents that two readers can read differently, or that contradict their request, are rejected and change
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_manifests_are_rejected() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let manifest = push_layers(&client, "a", &[b"one"]).await;
    let text = manifest.to_string();
    let mut both = manifest.clone();
    both["manifests"] = json!([]);
    for (media_type, text) in [
        (INDEX, text.clone()),
        ("not a type", text.clone()),
        (MANIFEST, both.to_string()),
        (MANIFEST, format!("{text}{text}")),
        (
            MANIFEST,
            format!("{{\"layers\":[],{}", text.trim_start_matches('{')),
        ),
        (MANIFEST, String::new()),
    ] {
        let answer = put(&client, "/v2/a/manifests/x", media_type, &text).await;
        answer.expect_error(400, "MANIFEST_INVALID");
    }
    let digest = sha256(text.as_bytes());
    let spaced = format!("{text}  ");
    let answer = put(
        &client,
        &format!("/v2/a/manifests/{digest}"),
        MANIFEST,
        &spaced,
    )
    .await;
    answer.expect_error(400, "DIGEST_INVALID");
    let answer = put(
        &client,
        "/v2/a/manifests/sha256:baddigeststring",
        MANIFEST,
        &text,
    )
    .await;
    answer.expect_error(400, "DIGEST_INVALID");
    client
        .get("/v2/a/manifests/x")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
}

/// Guards: spec, "Pushing Manifests": 4 MB are accepted, more than the limit is 413, with a length and without.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_have_a_limit() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut manifest = push_layers(&client, "a", &[]).await;
    manifest["annotations"] = json!({"big": "x".repeat(4_000_000 - 500)});
    put_manifest(&client, "a", "big", &manifest).await;
    manifest["annotations"] = json!({"big": "x".repeat(4 << 20)});
    let text = manifest.to_string();
    for body in [whole(text.clone()), chunked(vec![text.clone().into()])] {
        let call = client
            .call(Method::PUT, "/v2/a/manifests/big")
            .header("content-type", MANIFEST);
        call.body(body)
            .send()
            .await
            .expect_error(413, "SIZE_INVALID");
    }
}

/// Guards: spec, end-7b: a push by digest sets its tags, which is the only way to tag a sha512 manifest. OCI-Tag
/// repeats all of them.
#[tokio::test(flavor = "multi_thread")]
async fn tags_of_a_push_by_digest() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let digest = Digest::of(Algorithm::Sha512, text.as_bytes());
    let tags: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
    let path = format!("/v2/a/manifests/{digest}?tag={}", tags.join("&tag="));
    let answer = put(&client, &path, MANIFEST, &text).await.expect(201);
    let set: Vec<_> = answer
        .headers
        .get_all("oci-tag")
        .iter()
        .map(|tag| tag.to_str().unwrap())
        .collect();
    assert_eq!(set, tags);
    for tag in &tags {
        let answer = client
            .head(&format!("/v2/a/manifests/{tag}"))
            .await
            .expect(200);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    }
    let bad = format!("/v2/a/manifests/{digest}?tag=ok&tag=.bad");
    put(&client, &bad, MANIFEST, &text)
        .await
        .expect_error(400, "MANIFEST_INVALID");
    client.head("/v2/a/manifests/ok").await.expect(404);
    let many = format!(
        "/v2/a/manifests/{digest}?tag={}",
        vec!["t"; 65].join("&tag=")
    );
    put(&client, &many, MANIFEST, &text).await.expect(414);
}

/// Guards: compare-and-set of a tag: a failed If-Match or If-None-Match on PUT and DELETE is 412 and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn tags_move_under_conditions() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let one = push_layers(&client, "a", &[b"one"]).await.to_string();
    let two = push_layers(&client, "a", &[b"two"]).await.to_string();
    let etag = |text: &str| format!("\"{}\"", sha256(text.as_bytes()));
    let put_if = |text: &str, name: &'static str, value: String| {
        let call = client
            .call(Method::PUT, "/v2/a/manifests/t")
            .header("content-type", MANIFEST);
        call.header(name, value).body(whole(text.to_owned())).send()
    };
    put_if(&one, "if-match", "*".to_owned())
        .await
        .expect_error(412, "MANIFEST_INVALID");
    put_if(&one, "if-none-match", "*".to_owned())
        .await
        .expect(201);
    put_if(&two, "if-none-match", "*".to_owned())
        .await
        .expect(412);
    put_if(&two, "if-match", etag(&two)).await.expect(412);
    let answer = client.head("/v2/a/manifests/t").await.expect(200);
    assert_eq!(answer.header("etag"), etag(&one));
    put_if(&two, "if-match", format!("{}, {}", etag("x"), etag(&one)))
        .await
        .expect(201);
    let delete_if = |value: String| {
        client
            .call(Method::DELETE, "/v2/a/manifests/t")
            .header("if-match", value)
            .send()
    };
    delete_if(etag(&one)).await.expect(412);
    delete_if(etag(&two)).await.expect(202);
}

/// Guards: a blob that was not pushed as a manifest is none, whatever its size: it is neither read nor served as one.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_no_manifest() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let looks_like_one = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    push_image(&client, "a", "t", b"layer").await;
    for layer in [
        &content(1, 8 << 20)[..],
        looks_like_one.to_string().as_bytes(),
    ] {
        let digest = push_blob(&client, "a", layer).await;
        let path = format!("/v2/a/manifests/{digest}");
        client
            .get(&path)
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
        client.head(&path).await.expect(404);
        client
            .delete(&path)
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
        client
            .get(&format!("/v2/a/blobs/{digest}"))
            .await
            .expect(200);
    }
}

/// Guards: work on nested indexes grows with the number of manifests, and not with the number of ways through them.
/// Each is named once among what needs a damaged blob.
#[tokio::test(flavor = "multi_thread")]
async fn shared_manifests_are_visited_once() {
    const LEVELS: usize = 24;
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let image = push_image(&client, "a", "image", b"layer").await;
    let mut below = vec![image];
    for level in 0..LEVELS {
        let entries: Vec<_> = below
            .iter()
            .map(|digest| json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1}))
            .collect();
        let mut made = Vec::new();
        for side in ["left", "right"] {
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries,
                "annotations": {"side": side}});
            let tag = format!("{side}-{level}");
            made.push(put_manifest(&client, "a", &tag, &index).await);
        }
        below = made;
    }
    let (layer, view) = (sha256(b"layer"), registry.store.view());
    let needed = view.read(|view| view.needed_by(&layer, 4 * LEVELS)).await;
    let needed = needed.unwrap();
    assert_eq!(
        (needed.manifests.len(), needed.more),
        (2 * LEVELS + 1, false)
    );
    assert_eq!(needed.tags.len(), 2 * LEVELS + 1);
}
