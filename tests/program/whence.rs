//! The command `whence`: where the content of a digest comes from.

use serde_json::Value;

use crate::pushing::{IMAGE, digest, push_blob, push_image, push_index};
use crate::serving::{Serving, run, tonnage};

/// Guards: a manifest, an index's child and a layer lead to the same manifests, from a server and from the closed
/// store; the text names place, time and sender. An unknown digest is exit code 9, and a part of one exit code 2.
#[test]
fn content_leads_to_its_push() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    let image = push_image(&server, "team/a", "v1", &[b"{}", b"layer"]);
    let index = push_index(&server, "team/a", "all", IMAGE, &image);
    push_blob(&server, "team/b", b"alone");
    let whence = |what: &str, json: bool| {
        let mut command = tonnage(&["whence", what]);
        if json {
            command.arg("--json");
        }
        run(command.arg("--data").arg(&data))
    };
    let ask = |content: &[u8]| {
        let (code, stdout, stderr) = whence(&digest(content), true);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str::<Value>(&stdout).expect("JSON")
    };
    let contents: [&[u8]; 5] = [b"layer", b"{}", &image, &index, b"alone"];
    let online = contents.map(ask);
    for (found, count) in online.iter().zip([2, 2, 2, 1, 0]) {
        assert_eq!(
            found["manifests"].as_array().unwrap().len(),
            count,
            "{found}"
        );
        assert_eq!(
            (&found["version"], &found["stored"]),
            (&1.into(), &true.into())
        );
    }
    let [layer, .., alone] = &online;
    for (manifest, (content, tag)) in [(&image, "v1"), (&index, "all")].into_iter().enumerate() {
        let manifest = &layer["manifests"][manifest];
        assert_eq!(manifest["repository"], "team/a");
        assert_eq!(manifest["digest"], digest(content));
        assert_eq!(manifest["tags"], serde_json::json!([tag]));
        let pushed = &manifest["pushed"];
        assert!(pushed["by"] == "" && pushed["build"].is_null(), "{pushed}");
        assert!(pushed["at"].as_str().unwrap().starts_with("20"), "{pushed}");
        assert!(!pushed["request"].as_str().unwrap().is_empty(), "{pushed}");
    }
    assert_eq!(alone["repositories"], serde_json::json!(["team/b"]));
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    assert_eq!(contents.map(ask), online);

    let (_, text, _) = whence(&digest(b"layer"), false);
    let first = format!("team/a@{}\n  tags: v1\n  pushed: 20", digest(&image));
    assert!(
        text.starts_with(&first) && text.contains("Z by anonymous\n"),
        "{text}"
    );
    let (_, text, _) = whence(&digest(b"alone"), false);
    assert!(text.contains("it is a blob of team/b"), "{text}");
    let whole = digest(b"unknown");
    for (what, expected) in [
        (&whole[..], 9),
        (&whole[..20], 2),
        (&whole[7..], 2),
        ("v1", 2),
    ] {
        let (code, stdout, stderr) = whence(what, false);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{what}: {stderr}");
        assert!(
            code == 9 || stderr.contains("write the whole digest"),
            "{stderr}"
        );
    }
}
