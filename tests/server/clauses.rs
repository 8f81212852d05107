//! Clauses of the specification that no other file tests, and behaviour beyond them that clients need.

use http::Method;
use serde_json::{Value, json};
use tonnage_engine::{Algorithm, Digest};
use tonnage_server::ServerOptions;
use tonnage_server::registry::Limits;
use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{
    INDEX, LAYER, MANIFEST, begin, content, descriptor, push_blob, push_image, push_layers,
    put_manifest, sha256,
};

async fn put(client: &Client, path: &str, media_type: &str, text: &str) -> Answer {
    let call = client
        .call(Method::PUT, path)
        .header("content-type", media_type);
    call.body(whole(text.to_owned())).send().await
}

/// Follows Link to the last page. Returns all entries and the number of pages.
async fn all_pages(client: &Client, first: &str, field: &str) -> (Vec<Value>, usize) {
    let (mut path, mut all, mut pages) = (first.to_owned(), Vec::new(), 0);
    loop {
        let answer = client.get(&path).await.expect(200);
        all.extend(answer.json()[field].as_array().expect("a list").clone());
        pages += 1;
        if answer.lacks("link") {
            return (all, pages);
        }
        let link = answer.header("link").to_owned();
        let (next, rel) = link[1..].split_once('>').expect("a URI");
        assert_eq!(rel, "; rel=\"next\"");
        assert!(next.starts_with("/v2/"), "not a path of this host: {next}");
        next.clone_into(&mut path);
    }
}

/// Guards: spec, "Listing Tags": a page has fewer than `n` tags only with a Link, and no tag is lost or repeated over
/// many pages. After the last tag the list is empty and has no Link. The same holds for `/v2/_catalog`, whose names
/// contain slashes.
#[tokio::test(flavor = "multi_thread")]
async fn long_lists_come_in_pages() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[]).await.to_string();
    let digest = sha256(text.as_bytes());
    let tags: Vec<String> = (0..1100).map(|n| format!("t{n:04}")).collect();
    for some in tags.chunks(60) {
        let path = format!("/v2/a/manifests/{digest}?tag={}", some.join("&tag="));
        put(&client, &path, MANIFEST, &text).await.expect(201);
    }
    for query in ["", "?n=5000", "?n=1000", "?n=550", "?n=1099"] {
        let (found, pages) = all_pages(&client, &format!("/v2/a/tags/list{query}"), "tags").await;
        assert_eq!(json!(found), json!(tags), "{query}");
        assert_eq!(pages, 2, "{query}");
    }
    for query in ["last=t1099", "last=zzz&n=10"] {
        let answer = client.get(&format!("/v2/a/tags/list?{query}")).await;
        let answer = answer.expect(200);
        assert_eq!(answer.json()["tags"], json!([]));
        assert!(answer.lacks("link"));
    }
    let head = client.head("/v2/a/tags/list?n=1").await.expect(200);
    assert!(head.body.is_empty() && !head.lacks("link"));

    let names = ["a", "a/b", "a/b-c/d", "b", "c/a"];
    for name in names {
        push_blob(&client, name, b"x").await;
    }
    for n in 1..=6 {
        let first = format!("/v2/_catalog?n={n}");
        let (found, pages) = all_pages(&client, &first, "repositories").await;
        assert_eq!(json!(found), json!(names), "n={n}");
        assert_eq!(pages, names.len().div_ceil(n), "n={n}");
    }
    let none = client.get("/v2/_catalog?n=0").await.expect(200);
    assert_eq!(none.json()["repositories"], json!([]));
    assert!(none.lacks("link"));
}

/// Guards: spec, "Error Codes": every error body has the one form and a code of the specification; an answer to HEAD
/// has no body.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_error_has_one_form() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_image(&client, "a", "t", b"layer").await;
    let upload = begin(&client, "a").await;
    for (path, allowed) in [
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        (&format!("/v2/a/referrers/{digest}"), "GET, HEAD"),
        ("/v2/a/manifests/t", "GET, HEAD, PUT, DELETE"),
        (&format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
        (&upload, "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        let answer = client.call(Method::OPTIONS, path).send().await;
        let answer = answer.expect_error(405, "UNSUPPORTED");
        assert_eq!(answer.header("allow"), allowed, "{path}");
    }
    let ask = |method: Method, path: &str, name: &str, value: &str| {
        client.call(method, path).header(name, value).send()
    };
    let etag = format!("\"{digest}\"");
    let blob = format!("/v2/a/blobs/{}", sha256(b"layer"));
    let nowhere = sha256(b"nowhere");
    for (method, path, name, value, status, code) in [
        (
            Method::GET,
            "/v2/a/manifests/t",
            "if-match",
            "\"x\"",
            412,
            "MANIFEST_INVALID",
        ),
        (
            Method::DELETE,
            "/v2/a/manifests/t",
            "if-none-match",
            etag.as_str(),
            412,
            "MANIFEST_INVALID",
        ),
        (Method::GET, &blob, "range", "bytes=9-", 416, "SIZE_INVALID"),
        (
            Method::GET,
            &blob,
            "range",
            "bytes=0-,0-,0-",
            400,
            "SIZE_INVALID",
        ),
        (
            Method::PATCH,
            &upload,
            "content-range",
            "7-9",
            416,
            "BLOB_UPLOAD_INVALID",
        ),
        (
            Method::PATCH,
            &upload,
            "content-encoding",
            "gzip",
            415,
            "UNSUPPORTED",
        ),
        (
            Method::GET,
            "/v2/_oci/ext/discover",
            "accept",
            "*/*",
            404,
            "UNSUPPORTED",
        ),
        (
            Method::GET,
            "/v2/a%2Fb/tags/list",
            "accept",
            "*/*",
            404,
            "UNSUPPORTED",
        ),
        (
            Method::GET,
            "/v2/a/../b/tags/list",
            "accept",
            "*/*",
            400,
            "NAME_INVALID",
        ),
        (
            Method::DELETE,
            &format!("/v2/nowhere/manifests/{nowhere}"),
            "accept",
            "*/*",
            404,
            "NAME_UNKNOWN",
        ),
        (
            Method::DELETE,
            &format!("/v2/nowhere/blobs/{nowhere}"),
            "accept",
            "*/*",
            404,
            "BLOB_UNKNOWN",
        ),
        (
            Method::GET,
            &format!("/v2/{}/tags/list", "n".repeat(256)),
            "accept",
            "*/*",
            400,
            "NAME_INVALID",
        ),
        (
            Method::GET,
            "/v2/a/tags/list?n=-1",
            "accept",
            "*/*",
            400,
            "UNSUPPORTED",
        ),
        (
            Method::GET,
            "/v2/a/referrers/sha256:AB",
            "accept",
            "*/*",
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::GET,
            &format!("/v2/a/referrers/{digest}?last=x"),
            "accept",
            "*/*",
            400,
            "DIGEST_INVALID",
        ),
    ] {
        let answer = ask(method.clone(), path, name, value).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        answer.expect_error(status, code);
    }
    let many = format!(
        "/v2/a/manifests/{digest}?tag={}",
        vec!["t"; 65].join("&tag=")
    );
    let refused = put(&client, &many, MANIFEST, "{}").await;
    refused.expect_error(414, "MANIFEST_INVALID");
    for path in ["/v2/a/manifests/none", "/v2/none/manifests/t"] {
        let answer = client.head(path).await.expect(404);
        assert!(answer.body.is_empty());
    }
}

/// Guards: spec, "Error Codes": an error body never exceeds the 64 KiB that clients read, however many blobs are
/// missing.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_missing_blobs_fit_what_clients_read() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let entries: Vec<Value> = (0..3000)
        .map(|n: u32| {
            let digest = Digest::of(Algorithm::Sha512, &n.to_le_bytes());
            json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let call = client
        .call(Method::PUT, "/v2/a/manifests/t")
        .header("content-type", INDEX)
        .header("x-request-id", "r".repeat(128));
    let answer = call.body(whole(index.to_string())).send().await;
    let answer = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
    let named = answer.json()["errors"].as_array().unwrap().len();
    assert!(named > 50, "only {named} are named");
}

/// Guards: spec, "Pulling manifests" and "Pushing Manifests": GET and HEAD send the digest and the true length. No
/// encoding is used, whatever the client accepts. A HEAD ignores Range. Several ranges carry the manifest's type.
/// `?tag=` beside a tag sets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_manifest() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let digest = Digest::of(Algorithm::Sha512, text.as_bytes());
    let path = format!("/v2/a/manifests/{digest}");
    let pushed = put(&client, &format!("{path}?tag=t"), MANIFEST, &text).await;
    let pushed = pushed.expect(201);
    assert_eq!(pushed.header("docker-content-digest"), digest.to_string());
    assert_eq!(pushed.header("location"), path);
    for path in [path.as_str(), "/v2/a/manifests/t"] {
        for method in [Method::GET, Method::HEAD] {
            let mut call = client
                .call(method.clone(), path)
                .header("accept-encoding", "zstd, gzip, deflate, br");
            if method == Method::HEAD {
                call = call.header("range", "bytes=0-0");
            }
            let answer = call.send().await.expect(200);
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            assert_eq!(answer.header("content-length"), text.len().to_string());
            assert_eq!(answer.header("content-type"), MANIFEST);
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert!(answer.lacks("content-encoding"));
            let moving = path.ends_with("/t");
            assert_eq!(answer.header("cache-control") == "no-cache", moving);
        }
    }
    let call = client
        .call(Method::GET, &path)
        .header("range", "bytes=10-19,0-4,-3");
    let answer = call.send().await.expect(206);
    let parts = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(
        parts.matches(&format!("Content-Type: {MANIFEST}")).count(),
        3
    );
    let at = |part: &str| parts.find(part).expect(part);
    let length = text.len();
    assert!(at("bytes 10-19/") < at("bytes 0-4/"));
    assert!(at("bytes 0-4/") < at(&format!("bytes {}-{}/", length - 3, length - 1)));
    for list in ["/v2/a/tags/list", "/v2/_catalog"] {
        let call = client
            .call(Method::GET, list)
            .header("accept-encoding", "gzip");
        assert!(call.send().await.expect(200).lacks("content-encoding"));
    }
    let answer = put(&client, "/v2/a/manifests/own?tag=beside", MANIFEST, &text).await;
    assert!(answer.expect(201).lacks("oci-tag"));
    client.head("/v2/a/manifests/beside").await.expect(404);
}

/// Guards: spec, "Pushing Manifests": every valid manifest is accepted and returned with its type: without layers, with
/// unknown fields or `data`, artifacts, Docker's types, indexes of indexes.
#[tokio::test(flavor = "multi_thread")]
async fn all_kinds_of_manifests_are_accepted() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut image = push_layers(&client, "a", &[b"one"]).await;
    image["future"] = json!({"field": [1, 2.5, null]});
    image["config"]["data"] = json!("e30=");
    image["config"]["future"] = json!("x");
    let mut empty = push_layers(&client, "a", &[]).await;
    empty["artifactType"] = json!("application/vnd.example+type");
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let docker_list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let mut schema2 = push_layers(&client, "a", &[b"two"]).await;
    schema2["mediaType"] = json!(docker);
    let entry = |media_type: &str, of: &Value| {
        let text = of.to_string();
        json!({"mediaType": media_type, "digest": sha256(text.as_bytes()).to_string(), "size": text.len()})
    };
    let list = json!({"schemaVersion": 2, "mediaType": docker_list, "manifests": [entry(docker, &schema2)]});
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(MANIFEST, &image)]});
    let nested =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(INDEX, &index)]});
    let artifact = "application/vnd.oci.artifact.manifest.v1+json";
    let artifact =
        json!({"mediaType": artifact, "artifactType": "a/b", "blobs": [descriptor(LAYER, b"one")]});
    for manifest in [&image, &empty, &schema2, &list, &index, &nested, &artifact] {
        let digest = put_manifest(&client, "a", "t", manifest).await;
        let answer = client
            .get(&format!("/v2/a/manifests/{digest}"))
            .await
            .expect(200);
        assert_eq!(
            answer.header("content-type"),
            manifest["mediaType"].as_str().unwrap()
        );
        assert_eq!(answer.body, manifest.to_string());
    }
}

/// Guards: spec, "Pulling manifests" and "Listing Referrers": manifests, tags and referrers are visible only in the
/// repository to which they were pushed.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_are_separate() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let subject = push_image(&client, "a", "t", b"layer").await;
    push_image(&client, "b", "other", b"layer two").await;
    let mut referrer = push_layers(&client, "a", &[]).await;
    referrer["subject"] = json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 1});
    let referrer = put_manifest(&client, "a", "r", &referrer).await;
    for reference in ["t".to_owned(), subject.to_string(), referrer.to_string()] {
        let path = format!("/v2/b/manifests/{reference}");
        client
            .get(&path)
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
        client
            .delete(&path)
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    let listed = client
        .get(&format!("/v2/b/referrers/{subject}"))
        .await
        .expect(200);
    assert_eq!(listed.json()["manifests"], json!([]));
    let tags = client.get("/v2/b/tags/list").await.expect(200);
    assert_eq!(tags.json()["tags"], json!(["other"]));
    client.get("/v2/a/manifests/t").await.expect(200);
}

/// Guards: RFC 9110 section 13.1: a failed condition on a push or deletion by digest, and If-None-Match on a deletion,
/// give 412 and change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_apply_to_digests() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let digest = sha256(text.as_bytes());
    let path = format!("/v2/a/manifests/{digest}");
    let send = |method: Method, name: &str, value: &str| {
        let call = client
            .call(method, &path)
            .header("content-type", MANIFEST)
            .header(name, value);
        call.body(whole(text.clone())).send()
    };
    send(Method::PUT, "if-match", "*")
        .await
        .expect_error(412, "MANIFEST_INVALID");
    client.head(&path).await.expect(404);
    send(Method::PUT, "if-none-match", "*").await.expect(201);
    send(Method::PUT, "if-none-match", "*")
        .await
        .expect_error(412, "MANIFEST_INVALID");
    send(Method::DELETE, "if-none-match", "*").await.expect(412);
    let other = format!("\"{}\"", sha256(b"other"));
    send(Method::DELETE, "if-match", &other).await.expect(412);
    client.head(&path).await.expect(200);
    let own = format!("\"{digest}\"");
    send(Method::DELETE, "if-match", &own).await.expect(202);
    client.head(&path).await.expect(404);
}

/// Guards: requests of lazy pullers work over HTTP/1.1 too: 1024 ranges with ten-digit offsets in one header of 23 KB.
/// Ranges outside the blob are left out, the others come in order.
#[tokio::test(flavor = "multi_thread")]
async fn long_headers_over_http1() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(7, 1 << 20);
    let digest = push_blob(&client, "a", &blob).await;
    let path = format!("/v2/a/blobs/{digest}");
    let list: Vec<String> = (0..1024_u64)
        .map(|n| format!("{:010}-{:010}", n * 1500, n * 1500 + 9))
        .collect();
    let range = format!("bytes={}", list.join(","));
    assert!(range.len() > 22 << 10);
    let call = client.call(Method::GET, &path).header("range", &range);
    let answer = call.send().await.expect(206);
    let inside = blob.len().div_ceil(1500);
    let found = answer
        .body
        .windows(15)
        .filter(|bytes| bytes == b"Content-Range: ");
    assert_eq!(found.count(), inside);
    let outside: Vec<String> = (0..1024_u64)
        .map(|n| format!("{}-", (1 << 30) + n))
        .collect();
    let call = client
        .call(Method::GET, &path)
        .header("range", format!("bytes={}", outside.join(",")));
    call.send().await.expect_error(416, "SIZE_INVALID");
}

/// Guards: spec, "Enabling the Referrers API": a copy from a registry without that API brings an index under a fallback
/// tag (longer digests are cut to 64 digits). It may come before or after its entries, once or twice. Each entry whose
/// manifest has the subject is listed once; the index and entries without a subject are not. The tag stays a tag, and
/// neither it nor its deletion changes the list.
#[tokio::test(flavor = "multi_thread")]
async fn fallback_tags_change_no_referrers() {
    let limits = Limits {
        sparse: vec!["sparse".parse().unwrap()],
        ..Limits::default()
    };
    let options = ServerOptions {
        limits,
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    for (name, index_first) in [("a", false), ("sparse", true), ("sparse/not", false)] {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let subject = Digest::of(algorithm, b"not copied yet");
            let mut referrer = push_layers(&client, name, &[algorithm.name().as_bytes()]).await;
            let stranger = referrer.clone();
            referrer["subject"] =
                json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 14});
            referrer["artifactType"] = json!("application/x.sbom");
            let entry = |of: &Value| {
                let text = of.to_string();
                // Older clients omit the artifact type; then the one in the manifest counts.
                json!({"mediaType": MANIFEST, "digest": sha256(text.as_bytes()).to_string(), "size": text.len()})
            };
            let index = json!({
                "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&referrer), entry(&stranger)],
            });
            let (prefix, encoded) = (algorithm.name(), subject.to_string());
            let encoded = encoded.split_once(':').unwrap().1;
            let fallback = format!("{prefix}-{}", &encoded[..64]);
            if index_first {
                put_manifest(&client, name, &fallback, &index).await;
            } else {
                let path = format!("/v2/{name}/manifests/{fallback}");
                let early = put(&client, &path, INDEX, &index.to_string()).await;
                early.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
            }
            for manifest in [&referrer, &stranger] {
                let text = manifest.to_string();
                let path = format!("/v2/{name}/manifests/{}", sha256(text.as_bytes()));
                put(&client, &path, MANIFEST, &text).await.expect(201);
                put(&client, &path, MANIFEST, &text).await.expect(201);
            }
            put_manifest(&client, name, &fallback, &index).await;
            let path = format!("/v2/{name}/referrers/{subject}");
            let mut expected = entry(&referrer);
            expected["artifactType"] = json!("application/x.sbom");
            let listed = client.get(&path).await.expect(200);
            assert_eq!(
                listed.json()["manifests"],
                json!([expected]),
                "{name} {algorithm:?}"
            );
            client
                .get(&format!("/v2/{name}/manifests/{fallback}"))
                .await
                .expect(200);
            client
                .delete(&format!("/v2/{name}/manifests/{fallback}"))
                .await
                .expect(202);
            let listed = client.get(&path).await.expect(200);
            assert_eq!(listed.json()["manifests"], json!([expected]));
            let gone = sha256(referrer.to_string().as_bytes());
            client
                .delete(&format!("/v2/{name}/manifests/{gone}"))
                .await
                .expect(202);
            let listed = client.get(&path).await.expect(200);
            assert_eq!(listed.json()["manifests"], json!([]));
        }
    }
}

/// Guards: spec, "Pushing a blob": the id in Location is a UUID and the same on every answer of the session. Those
/// answers have no body, and a HEAD for the status gives the same headers.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_have_a_uuid() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let begun = client
        .post("/v2/a/b/blobs/uploads/?digest-algorithm=sha512")
        .await;
    let begun = begun.expect(202);
    let location = begun.header("location").to_owned();
    let id = location.strip_prefix("/v2/a/b/blobs/uploads/").unwrap();
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
    assert!(
        id.bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    );
    let patched = client.patch(&location, "ab").await.expect(202);
    let status = client.get(&location).await.expect(204);
    let head = client.head(&location).await.expect(204);
    for answer in [&begun, &patched, &status, &head] {
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.header("docker-upload-uuid"), id);
        assert!(answer.body.is_empty());
    }
    for answer in [&patched, &status, &head] {
        assert_eq!(answer.header("range"), "0-1");
    }
    let config = Digest::of(Algorithm::Sha512, b"ab");
    client
        .put(&format!("{location}?digest={config}"), "")
        .await
        .expect(201);
}
