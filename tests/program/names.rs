//! The commands `repo` and `tag`: lists and deletions, on a running server and on a closed store.

use std::path::Path;

use serde_json::{Value, json};

use crate::serving::{Serving, get, run, send, tonnage};

/// The SHA-256 of `{}`, which is both config and blob here.
const BLOB: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// More than two pages of tags.
const TAGS: usize = 2300;
/// The number of tags set by one push.
const TAGS_A_PUSH: usize = 64;

/// Pushes a manifest over a blob, under many tags.
fn fill(server: &Serving, data: &Path, name: &str, tags: usize) {
    let url = &server.url;
    let line = format!("POST /v2/{name}/blobs/uploads/?digest={BLOB}");
    assert_eq!(send(url, &line, "application/octet-stream", b"{}").0, 201);
    let config =
        json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": BLOB, "size": 2});
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let text = manifest.to_string();
    assert_eq!(put(url, &format!("/v2/{name}/manifests/first"), &text), 201);
    let (status, found) = get(url, &format!("/v2/{name}/manifests/first"));
    assert_eq!((status, found), (200, text.clone().into_bytes()));
    let listed = result(data, &["tag", "list", name]);
    let digest = listed.split_whitespace().nth(1).unwrap().to_owned();
    let names: Vec<String> = (0..tags).map(|n| format!("tag=t{n:05}")).collect();
    for query in names.chunks(TAGS_A_PUSH) {
        let path = format!("/v2/{name}/manifests/{digest}?{}", query.join("&"));
        assert_eq!(put(url, &path, &text), 201);
    }
}

fn put(url: &str, path: &str, text: &str) -> u16 {
    send(url, &format!("PUT {path}"), MANIFEST, text.as_bytes()).0
}

/// Runs a command with `--data` at its end. Returns exit code and outputs.
fn at(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    run(tonnage(arguments).arg("--data").arg(data))
}

/// Returns the output of a command that succeeds.
fn result(data: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = at(data, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

fn json_of(data: &Path, arguments: &[&str]) -> Value {
    let value: Value = serde_json::from_str(&result(data, arguments)).unwrap();
    assert_eq!(value["version"], 1, "{value}");
    value
}

/// Lists, rejects and deletes: the same on a server and on a closed store.
fn tags_are_listed_and_deleted(data: &Path) {
    let listed = result(data, &["tag", "list", "a/b"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), TAGS + 1);
    assert!(
        lines[0].ends_with("  first") && lines[0].contains("Z  sha256:"),
        "{}",
        lines[0]
    );
    let document = json_of(data, &["tag", "list", "a/b", "--json"]);
    let tags = document["tags"].as_array().unwrap();
    let names: Vec<&str> = tags
        .iter()
        .map(|tag| tag["tag"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), TAGS + 1);
    assert!(names.is_sorted(), "not in order");
    assert_eq!(document["repository"], "a/b");

    let (code, _, stderr) = at(data, &["tag", "delete", "a/b", "t00000", "none"]);
    assert!(
        code == 9 && stderr.contains("no tag none") && stderr.contains("tag list a/b"),
        "{code} {stderr}"
    );
    let dry = json_of(
        data,
        &[
            "tag",
            "delete",
            "a/b",
            "t00000",
            "first",
            "--dry-run",
            "--json",
        ],
    );
    assert_eq!(
        (&dry["deleted"], dry["tags"].as_array().unwrap().len()),
        (&json!(false), 2)
    );
    assert_eq!(
        result(data, &["tag", "list", "a/b"]).lines().count(),
        TAGS + 1
    );
    let said = result(data, &["tag", "delete", "a/b", "t00000", "first", "first"]);
    assert!(
        said.lines().count() == 2 && said.starts_with("deleted "),
        "{said}"
    );
    assert_eq!(
        result(data, &["tag", "list", "a/b"]).lines().count(),
        TAGS - 1
    );
    let (code, _, stderr) = at(data, &["tag", "list", "nowhere"]);
    // The command that the message suggests works.
    let next = format!("tonnage repo list --data {}", data.display());
    assert!(code == 9 && stderr.contains(&next), "{code} {stderr}");
}

fn repositories_are_listed_and_deleted(data: &Path) {
    assert_eq!(result(data, &["repo", "list"]), "a/b\nc\n");
    let dry = json_of(data, &["repo", "delete", "a/b", "--dry-run", "--json"]);
    let expected = json!({
        "version": 1, "repository": "a/b", "deleted": false, "tags": TAGS - 1, "manifests": 1, "blobs": 1,
    });
    assert_eq!(dry, expected);
    assert_eq!(
        json_of(data, &["repo", "list", "--json"])["repositories"],
        json!(["a/b", "c"])
    );
    let said = result(data, &["repo", "delete", "a/b"]);
    assert!(said.starts_with("deleted a/b: "), "{said}");
    assert_eq!(
        json_of(data, &["repo", "list", "--json"])["repositories"],
        json!(["c"])
    );
    let (code, _, stderr) = at(data, &["repo", "delete", "a/b"]);
    assert!(
        code == 9 && stderr.contains("nothing was done"),
        "{code} {stderr}"
    );
}

fn only_c_is_left(url: &str) {
    let (status, body) = get(url, "/v2/_catalog");
    assert_eq!(
        (status, body.as_slice()),
        (200, br#"{"repositories":["c"]}"#.as_slice())
    );
    let (status, body) = get(url, "/v2/a/b/tags/list");
    assert!(status == 404 && String::from_utf8_lossy(&body).contains("NAME_UNKNOWN"));
    assert_eq!(get(url, &format!("/v2/a/b/blobs/{BLOB}")).0, 404);
    assert_eq!(get(url, &format!("/v2/c/blobs/{BLOB}")).0, 200);
}

/// Guards: `repo` and `tag` through a server's socket: lists of several pages, `--json`, `--dry-run`, all or none, and
/// 9 for a missing name. Deleted names are gone over HTTP at once; the same blob elsewhere is not.
#[test]
fn names_are_listed_and_deleted_online() {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::start(directory.path(), &[]);
    assert_eq!(result(directory.path(), &["repo", "list"]), "");
    assert_eq!(
        json_of(directory.path(), &["repo", "list", "--json"])["repositories"],
        json!([])
    );
    fill(&server, directory.path(), "a/b", TAGS);
    fill(&server, directory.path(), "c", 1);
    tags_are_listed_and_deleted(directory.path());
    repositories_are_listed_and_deleted(directory.path());
    only_c_is_left(&server.url);
    // A repository created under the name is empty.
    fill(&server, directory.path(), "a/b", 1);
    assert_eq!(
        result(directory.path(), &["tag", "list", "a/b"])
            .lines()
            .count(),
        2
    );
}

/// Guards: the same on a closed store, which is sound afterwards and serves the rest. A directory without a store is
/// unchanged.
#[test]
fn names_are_listed_and_deleted_offline() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    fill(&server, &data, "a/b", TAGS);
    fill(&server, &data, "c", 1);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    tags_are_listed_and_deleted(&data);
    repositories_are_listed_and_deleted(&data);
    let (code, stdout, stderr) = at(&data, &["fsck", "--deep"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    only_c_is_left(&Serving::start(&data, &[]).url);

    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (code, _, stderr) = at(&empty, &["repo", "delete", "a/b"]);
    assert_eq!(code, 6, "{stderr}");
    assert_eq!(
        std::fs::read_dir(&empty).unwrap().count(),
        0,
        "a store was created"
    );
    let socket = empty.join("admin.sock");
    let (code, _, stderr) = run(tonnage(&["repo", "delete", "a/b", "--server"]).arg(&socket));
    assert!(
        code == 4 && stderr.contains("no server is running"),
        "{code} {stderr}"
    );
}
