//! Lists of referrers: content, filters, pages.

use serde_json::{Value, json};
use tonnage_tests::client::whole;
use tonnage_tests::registry::TestRegistry;

use crate::{INDEX, MANIFEST, descriptor, push_image, push_layers, put_manifest, sha256};

/// Guards: spec, "Listing Referrers" (end-12): the answer is always 200 and an index, with artifact types and
/// annotations by the clause. Filters work. A subject may be absent (OCI-Subject on the push). Indexes are referrers
/// too.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_listed() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let subject = sha256(b"not pushed yet");
    let path = format!("/v2/a/referrers/{subject}");
    let answer = client.get(&path).await.expect(200);
    assert_eq!(answer.header("content-type"), INDEX);
    assert_eq!(
        answer.json(),
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
    );

    let mut signature = push_layers(&client, "a", &[b"sig"]).await;
    signature["subject"] = descriptor(MANIFEST, b"not pushed yet");
    signature["annotations"] = json!({"made": "today"});
    let mut sbom = signature.clone();
    sbom["artifactType"] = json!("application/sbom+json");
    sbom["annotations"] = Value::Null;
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": signature["subject"],
    });
    let mut expected = Vec::new();
    for (manifest, artifact_type) in [
        (&signature, Some("application/vnd.oci.image.config.v1+json")),
        (&sbom, Some("application/sbom+json")),
        (&index, None),
    ] {
        let text = manifest.to_string();
        let call = client.call(
            http::Method::PUT,
            &format!("/v2/a/manifests/{}", sha256(text.as_bytes())),
        );
        let call = call.header("content-type", manifest["mediaType"].as_str().unwrap());
        let answer = call
            .body(tonnage_tests::client::whole(text.clone()))
            .send()
            .await
            .expect(201);
        assert_eq!(answer.header("oci-subject"), subject.to_string());
        let mut entry = descriptor(manifest["mediaType"].as_str().unwrap(), text.as_bytes());
        if let Some(artifact_type) = artifact_type {
            entry["artifactType"] = json!(artifact_type);
        }
        if manifest["annotations"].is_object() {
            entry["annotations"] = manifest["annotations"].clone();
        }
        expected.push(entry);
    }
    let answer = client.get(&path).await.expect(200);
    let listed = answer.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    assert!(
        expected.iter().all(|entry| listed.contains(entry)),
        "{listed:?}\n{expected:?}"
    );
    assert!(answer.lacks("oci-filters-applied"));
    for query in ["application/sbom%2Bjson", "application/sbom+json"] {
        let answer = client
            .get(&format!("{path}?artifactType={query}"))
            .await
            .expect(200);
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
        assert_eq!(answer.json()["manifests"], json!([expected[1]]));
    }
    let answer = client
        .get(&format!("{path}?artifactType=a/b"))
        .await
        .expect(200);
    assert_eq!(answer.json()["manifests"], json!([]));
    client
        .get(&format!("/v2/elsewhere/referrers/{subject}"))
        .await
        .expect(200);
    client
        .delete(&format!(
            "/v2/a/manifests/{}",
            sha256(index.to_string().as_bytes())
        ))
        .await
        .expect(202);
    assert_eq!(
        client.get(&path).await.expect(200).json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

/// Guards: a list too large for one answer continues at its Link and keeps its filter. No entry is lost or repeated.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_page_by_page() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let subject = push_image(&client, "a", "t", b"layer").await;
    let mut referrer = push_layers(&client, "a", &[]).await;
    referrer["subject"] = json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 1});
    referrer["artifactType"] = json!("a/b");
    for n in 0..9 {
        // One of the largest alone fills a page; control characters take six bytes each.
        let big = match n % 4 {
            0 | 2 => "x".repeat(3_900_000),
            1 => "x".repeat(400_000),
            _ => "\u{1}".repeat(100_000),
        };
        referrer["annotations"] = json!({"n": format!("{n}"), "big": big});
        put_manifest(&client, "a", &format!("r{n}"), &referrer).await;
    }
    let mut path = format!("/v2/a/referrers/{subject}?artifactType=a/b");
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let answer = client.get(&path).await.expect(200);
        assert!(answer.body.len() < 4 << 20);
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
        pages += 1;
        for entry in answer.json()["manifests"].as_array().unwrap() {
            seen.push(entry["annotations"]["n"].as_str().unwrap().to_owned());
        }
        if answer.lacks("link") {
            break;
        }
        let link = answer.header("link").to_owned();
        link[1..link.find('>').unwrap()].clone_into(&mut path);
    }
    seen.sort();
    assert!(pages > 1);
    assert_eq!(seen, (0..9).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Guards: spec, "Listing Referrers": a page does not end at referrers of other types than the requested one, because
/// some clients read only one page.
#[tokio::test(flavor = "multi_thread")]
async fn a_rare_type_is_on_the_first_page() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let subject = sha256(b"subject");
    let mut referrer = push_layers(&client, "a", &[]).await;
    referrer["subject"] = json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 1});
    referrer["artifactType"] = json!("a/many");
    let put = async |text: String| {
        let path = format!("/v2/a/manifests/{}", sha256(text.as_bytes()));
        let call = client.call(http::Method::PUT, &path);
        let call = call.header("content-type", MANIFEST).body(whole(text));
        call.send().await.expect(201);
    };
    let mut greatest = None;
    for n in 0..1100 {
        referrer["annotations"] = json!({"n": n.to_string()});
        let text = referrer.to_string();
        greatest = greatest.max(Some(sha256(text.as_bytes())));
        put(text).await;
    }
    referrer["artifactType"] = json!("a/rare");
    let rare = (0..).map(|n| {
        referrer["annotations"] = json!({"n": n.to_string()});
        referrer.to_string()
    });
    let last = rare
        .into_iter()
        .find(|text| Some(sha256(text.as_bytes())) > greatest);
    put(last.unwrap()).await;
    let path = format!("/v2/a/referrers/{subject}?artifactType=a");
    let listed = async |path: &str| {
        let answer = client.get(path).await.expect(200);
        assert!(answer.lacks("link"));
        answer.json()["manifests"].as_array().unwrap().len()
    };
    assert_eq!(listed(&format!("{path}/rare")).await, 1);
    assert_eq!(listed(&format!("{path}/many")).await, 1100);
    assert_eq!(listed(&format!("{path}/none")).await, 0);
}

/// Guards: spec, "Listing Referrers": a full page is almost as large as clients accept.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_as_large_as_clients_accept() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let subject = sha256(b"subject");
    let mut referrer = push_layers(&client, "a", &[]).await;
    referrer["subject"] = json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 1});
    for n in 0..50 {
        referrer["annotations"] = json!({"n": n.to_string(), "big": "x".repeat(100_000)});
        put_manifest(&client, "a", &format!("t{n}"), &referrer).await;
    }
    let path = format!("/v2/a/referrers/{subject}");
    let answer = client.get(&path).await.expect(200);
    assert!(
        (4_000_000..=4 << 20).contains(&answer.body.len()),
        "{}",
        answer.body.len()
    );
    answer.header("link");
}
