//! Tests of which manifests are accepted and which are rejected.

use proptest::prelude::*;
use serde_json::{Value, json};
use tonnage_engine::vocabulary::Algorithm;

use super::super::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::*;

fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes()).to_string();
    json!({"mediaType": media_type, "digest": digest, "size": content.len()})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", "{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "a")],
    })
}

fn parse(document: &Value, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
    Manifest::parse(document.to_string().as_bytes(), content_type)
}

/// Guards: image-spec manifest.md; unknown fields, repeated and non-distributable layers are accepted.
#[test]
fn images_are_read_liberally() {
    let mut document = image();
    document["layers"] = json!([
        descriptor("application/vnd.oci.image.layer.v1.tar", "a"),
        descriptor("application/vnd.oci.image.layer.v1.tar", "a"),
        descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "b"
        ),
    ]);
    document["new"] = json!({"field": [1, 2, null]});
    document["annotations"] = json!({"A": "1", "a": "2"});
    document["subject"] = descriptor(OCI_MANIFEST, "nowhere");
    let manifest = parse(&document, Some(OCI_MANIFEST)).unwrap();
    let optional: Vec<bool> = manifest
        .children
        .iter()
        .map(|child| child.optional)
        .collect();
    assert_eq!(optional, [false, false, true]);
    assert_eq!(
        manifest.subject,
        Some(Digest::of(Algorithm::Sha256, b"nowhere"))
    );
    assert_eq!(
        manifest.artifact_type.as_deref(),
        Some("application/vnd.oci.image.config.v1+json")
    );
    assert_eq!(manifest.annotations.len(), 2);
    for (key, value) in [
        ("layers", json!([])),
        ("layers", Value::Null),
        ("artifactType", json!("a/b")),
    ] {
        let mut document = image();
        document[key] = value;
        assert_eq!(parse(&document, None).unwrap().kind, Kind::Image, "{key}");
    }
}

/// Guards: image-spec image-index.md: empty ones, also as Go writes them, blobs as entries, no artifact type from
/// children.
#[test]
fn indexes_are_read_liberally() {
    for list in [
        json!([]),
        Value::Null,
        json!([descriptor("application/vnd.x.cache.layer", "cache")]),
    ] {
        for media_type in [
            None,
            Some(OCI_INDEX),
            Some(DOCKER_LIST),
            Some("application/vnd.x+json"),
        ] {
            let document = json!({
                "schemaVersion": 2, "mediaType": media_type, "manifests": list, "layers": null, "config": null,
            });
            let manifest = parse(&document, media_type).unwrap();
            assert_eq!((manifest.kind, manifest.artifact_type), (Kind::Index, None));
            let either = |child: &Child| child.place == Place::Either;
            assert!(manifest.children.iter().all(either));
        }
    }
    let mut image = image();
    image["manifests"] = Value::Null;
    assert_eq!(parse(&image, None).unwrap().kind, Kind::Image);
}

/// Guards: where clients look for a child, by its type; a digest that is listed twice must be found in both places.
#[test]
fn children_are_looked_for_where_clients_do() {
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let index = |entries: Value| {
        let document = json!({"schemaVersion": 2, "manifests": entries});
        parse(&document, Some(OCI_INDEX)).unwrap().children
    };
    let upper = OCI_MANIFEST.to_ascii_uppercase();
    for (media_types, place) in [
        (vec![OCI_MANIFEST], Place::Manifest),
        (vec![upper.as_str()], Place::Manifest),
        (vec![DOCKER_LIST], Place::Manifest),
        (vec![layer], Place::Blob),
        (vec!["application/vnd.x"], Place::Either),
        (vec!["no type"], Place::Either),
        (vec!["application/vnd.x", OCI_INDEX], Place::Manifest),
        (vec![OCI_MANIFEST, layer, "application/vnd.x"], Place::Both),
    ] {
        let entries = media_types
            .iter()
            .map(|media_type| descriptor(media_type, "a"));
        let children = index(entries.collect());
        assert_eq!(children.len(), 1);
        assert_eq!(children[0].place, place, "{media_types:?}");
    }
    let mut image = image();
    image["layers"] = json!([
        descriptor(OCI_MANIFEST, "a"),
        descriptor("application/vnd.x", "b")
    ]);
    let children = parse(&image, None).unwrap().children;
    let places: Vec<Place> = children.iter().map(|child| child.place).collect();
    assert_eq!(places, [Place::Blob, Place::Either, Place::Blob]);
}

/// Guards: the stored type is known or confirmed by the document, is one of JSON, and is compared without case.
#[test]
fn types_are_confirmed() {
    let mut silent = image();
    silent.as_object_mut().unwrap().remove("mediaType");
    let upper = OCI_MANIFEST.to_ascii_uppercase();
    for header in [None, Some(OCI_MANIFEST), Some(upper.as_str())] {
        for document in [&silent, &image()] {
            let manifest = parse(document, header).unwrap();
            assert_eq!(manifest.media_type.as_str(), OCI_MANIFEST);
        }
    }
    assert_eq!(
        parse(&silent, Some(DOCKER_MANIFEST))
            .unwrap()
            .media_type
            .as_str(),
        DOCKER_MANIFEST
    );
    for header in ["application/json", "text/html", "application/vnd.x+json"] {
        let refused = parse(&silent, Some(header));
        assert!(
            matches!(refused, Err(ManifestError::MediaTypeMissing(_))),
            "{header}"
        );
    }
    for run in [
        "text/html",
        "image/svg+xml",
        "application/xhtml+xml",
        "text/javascript",
    ] {
        let mut document = image();
        document["mediaType"] = json!(run);
        let refused = parse(&document, Some(run));
        assert!(
            matches!(refused, Err(ManifestError::NotJsonType(_))),
            "{run}"
        );
    }
    let mut own = image();
    own["mediaType"] = json!("Application/vnd.X+json");
    let manifest = parse(&own, Some("application/vnd.x+JSON")).unwrap();
    assert_eq!(manifest.media_type.as_str(), "application/vnd.x+json");
}

/// Guards: limits apply both to decoded values and to their JSON.
#[test]
fn bounds_are_on_both_forms() {
    let mut long = image();
    long["artifactType"] = json!("\u{1}".repeat(171));
    assert!(matches!(
        parse(&long, None),
        Err(ManifestError::TooMany { .. })
    ));
    long["artifactType"] = json!("\u{1}".repeat(170));
    assert!(parse(&long, None).is_ok());
    let mut config = image();
    config["config"]["mediaType"] = json!("\"".repeat(513));
    assert!(matches!(
        parse(&config, None),
        Err(ManifestError::TooMany { .. })
    ));
    let mut large = image();
    large["annotations"] = json!({"a": "\n".repeat(2 << 20)});
    assert!(parse(&large, None).is_ok());
    large["subject"] = descriptor(OCI_MANIFEST, "nowhere");
    assert!(matches!(
        parse(&large, None),
        Err(ManifestError::TooMany { .. })
    ));
}

/// Guards: an error body is small whatever the client sent, because clients read at most 64 KiB of one.
#[test]
fn refusals_do_not_quote_megabytes() {
    let long = "\u{e4}\u{1}".repeat(100_000);
    let mut wrong = image();
    wrong["schemaVersion"] = json!(long);
    let twice = format!("{{\"{0}\":1,\"{0}\":2}}", long.replace('\u{1}', "x"));
    for text in [wrong.to_string(), twice] {
        let refused = Manifest::parse(text.as_bytes(), None)
            .unwrap_err()
            .to_string();
        assert!(refused.len() < 500, "{} bytes", refused.len());
        assert!(refused.contains("at line 1 column "), "{refused}");
    }
}

/// Rewrites every descriptor as a list of its fields' values.
fn as_lists(image: &Value) -> Value {
    let list = |of: &Value| json!([of["mediaType"], of["digest"], of["size"]]);
    let mut image = image.clone();
    image["config"] = list(&image["config"]);
    image["layers"] = json!([list(&image["layers"][0])]);
    image
}

/// Guards: a stored manifest that would be rejected today is still listed among referrers, with its annotations.
#[test]
fn annotations_of_stored_manifests_are_read_leniently() {
    let mut old = as_lists(&image());
    old["annotations"] = json!({"a": "1"});
    let found = stored_annotations(old.to_string().as_bytes()).unwrap();
    assert_eq!(found.get("a").map(String::as_str), Some("1"));
    assert_eq!(stored_annotations(b"{}"), Ok(BTreeMap::new()));
    assert!(stored_annotations(b"{\"annotations\":7}").is_err());
}

/// Guards: a document that two parsers may read differently is rejected (CVE-2021-41190 and similar).
#[test]
fn ambiguous_documents_are_refused() {
    let mut both = image();
    both["manifests"] = json!([]);
    assert!(matches!(parse(&both, None), Err(ManifestError::Shape(_))));
    let differ = parse(&image(), Some(DOCKER_MANIFEST));
    assert!(matches!(
        differ,
        Err(ManifestError::MediaTypesDiffer { .. })
    ));
    let text = image().to_string();
    let inner = text.trim_start_matches('{');
    for (bad, what) in [
        (format!("{text}{text}"), "trailing document"),
        (format!("{text}x"), "trailing bytes"),
        (format!("{{\"layers\":[],{inner}"), "repeated key"),
        (format!("{{\"Layers\":[],{inner}"), "key in another case"),
        (
            format!("{{\"x\":{{\"a\":1,\"\\u0061\":2}},{inner}"),
            "repeated key further in",
        ),
        (
            text.replace("\"digest\"", "\"Digest\":\"\",\"digest\""),
            "key in another case further in",
        ),
        (format!("[{text}]"), "not an object"),
        (text.replace("\"size\":1", "\"size\":-1"), "negative size"),
        (
            as_lists(&image()).to_string(),
            "descriptors without field names",
        ),
        (String::new(), "nothing"),
    ] {
        refused(&bad, what);
    }
}

fn refused(bad: &str, what: &str) {
    let outcome = Manifest::parse(bad.as_bytes(), None);
    assert!(
        matches!(outcome, Err(ManifestError::Json(_))),
        "{what}: {outcome:?}"
    );
}

/// Guards: documents that Go reads differently are rejected: numbers, characters, folded and escaped keys, depth.
#[test]
fn what_go_reads_otherwise_is_refused() {
    let text = image().to_string();
    let inner = text.trim_start_matches('{');
    for (bad, what) in [
        (
            text.replace("\"size\":1", "\"size\":9223372036854775808"),
            "a size that is no int64",
        ),
        (
            text.replace("\"size\":1", "\"size\":1.0"),
            "a size with a fraction",
        ),
        (
            text.replace("\"size\":1", "\"size\":1e0"),
            "a size with an exponent",
        ),
        (text.replace("\"size\":1", "\"size\":null"), "no size"),
        (
            text.replace("\"size\":1", "\"\u{17f}ize\":7,\"size\":1"),
            "a key that Unicode folds to a known one",
        ),
        (
            text.replace("\"size\":1", "\"\\u017Fize\":7,\"size\":1"),
            "the same, escaped",
        ),
        (
            format!("{{\"\\u006cayers\":[],{inner}"),
            "a repeated key, escaped",
        ),
        (format!("{{\"x\":\"\\ud800\",{inner}"), "half a character"),
        (
            format!("{{\"x\":{}{},{inner}", "[".repeat(200), "]".repeat(200)),
            "too deep",
        ),
        (format!("{{\"x\":01,{inner}"), "no number"),
        (
            format!("{{\"x\":\"\t\",{inner}"),
            "a bare control character",
        ),
        (
            format!("{{\"layers\":[null],{}", inner.replace("layers", "x")),
            "null for a layer",
        ),
    ] {
        refused(&bad, what);
    }
}

/// Guards: fields of descriptors and platforms that only clients use have the types that Go requires, and one spelling.
/// Unknown fields may have any value.
#[test]
fn descriptors_are_read_as_clients_do() {
    let with = |field: &str| {
        let mut image = image();
        image["config"]["mark"] = json!(0);
        let text = image.to_string().replace("\"mark\":0", field);
        Manifest::parse(text.as_bytes(), None)
    };
    for good in [
        r#""x":{"OS":1,"Layers":[],"data":7}"#,
        r#""platform":null,"urls":null,"annotations":null,"data":null,"artifactType":null"#,
        r#""platform":{"os":"linux","architecture":"amd64","variant":null,"os.features":["a"],"x":1}"#,
        r#""urls":["https://a"],"annotations":{"a":"1","A":"2"},"artifactType":"a/b""#,
        r#""data":"e30=""#,
    ] {
        assert!(with(good).is_ok(), "{good}: {:?}", with(good));
    }
    for bad in [
        r#""platform":"linux/amd64""#,
        r#""platform":["linux"]"#,
        r#""platform":{"os":1}"#,
        r#""platform":{"os":"linux","OS":"windows"}"#,
        r#""platform":{"oſ":"windows"}"#,
        r#""platform":{"os.features":"a"}"#,
        r#""platform":{"os":"linux","os":"windows"}"#,
        r#""urls":"https://a""#,
        r#""urls":[1]"#,
        r#""annotations":{"a":1}"#,
        r#""annotations":{"a":null}"#,
        r#""annotations":{"a":"1","a":"2"}"#,
        r#""annotations":[]"#,
        r#""Annotations":{}"#,
        r#""artifactType":{}"#,
        r#""data":7"#,
    ] {
        assert!(matches!(with(bad), Err(ManifestError::Json(_))), "{bad}");
    }
    for bad in [
        r#""data":"e3""#,
        r#""data":"e30""#,
        r#""data":"e31=""#,
        r#""data":"e31K""#,
    ] {
        assert!(
            matches!(with(bad), Err(ManifestError::Data { .. })),
            "{bad}"
        );
    }
    let bytes = image().to_string().replace("gzip", "gz\u{fffd}ip");
    let mut bytes = bytes.into_bytes();
    let at = bytes.iter().position(|byte| *byte == 0xef).unwrap();
    bytes[at] = 0xff;
    let refused = Manifest::parse(&bytes, None);
    assert!(
        matches!(refused, Err(ManifestError::Json(_))),
        "{refused:?}"
    );
}

/// Guards: the requirements of the registered types; errors name schema 1 and invalid digests.
#[test]
fn shapes_that_contradict_the_type_are_refused() {
    let without = |key: &str| {
        let mut document = image();
        document.as_object_mut().unwrap().remove(key);
        parse(&document, Some(OCI_MANIFEST))
    };
    assert!(matches!(without("config"), Err(ManifestError::Shape(_))));
    assert!(matches!(
        without("schemaVersion"),
        Err(ManifestError::Shape(_))
    ));
    let with = |key: &str, value: Value| {
        let mut document = image();
        document[key] = value;
        parse(&document, None)
    };
    assert_eq!(
        with("schemaVersion", json!(1)),
        Err(ManifestError::SchemaVersion(1))
    );
    assert!(matches!(
        with("mediaType", json!(OCI_INDEX)),
        Err(ManifestError::Shape(_))
    ));
    for odd in ["application/vnd.x+json;a=b", " application/vnd.x+json"] {
        let odd = with("mediaType", json!(odd));
        assert!(matches!(odd, Err(ManifestError::MediaType(_))), "{odd:?}");
    }
    let odd = with("subject", json!({"digest": "md5:00", "size": 0}));
    assert!(matches!(
        odd,
        Err(ManifestError::Digest {
            place: "subject",
            ..
        })
    ));
    for body in [
        json!({"schemaVersion": 2}),
        json!({"mediaType": "application/vnd.x+json"}),
        json!({"mediaType": "application/vnd.x+json", "schemaVersion": 2, "manifests": "x"}),
        json!({"schemaVersion": 2, "name": "a", "fsLayers": []}),
    ] {
        for media_type in [
            None,
            Some(OCI_MANIFEST),
            Some(OCI_INDEX),
            Some("application/vnd.x+json"),
        ] {
            assert!(
                parse(&body, media_type).is_err(),
                "{body} as {media_type:?}"
            );
        }
    }
    let artifact = "application/vnd.oci.artifact.manifest.v1+json";
    let artifact = json!({"mediaType": artifact, "artifactType": "a/b", "blobs": null});
    assert_eq!(parse(&artifact, None).unwrap().kind, Kind::Other);
    assert!(matches!(
        with("artifactType", json!("x".repeat(1025))),
        Err(ManifestError::TooMany { .. })
    ));
}

proptest! {
    /// Guards: no bytes make the parser panic.
    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..60),
                            text in "[{}\\[\\]\",:a0 ]{0,40}") {
        drop(Manifest::parse(&bytes, None));
        drop(Manifest::parse(text.as_bytes(), Some(OCI_INDEX)));
    }
}
