//! The command `usage`: what repositories have, and what a deletion frees.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pushing::{IMAGE, digest, push_blob, push_image, push_index};
use crate::serving::{Serving, run, send, tonnage};

/// Longer than this, the grace of 1 s does not take on any machine.
const DEADLINE: Duration = Duration::from_mins(2);

/// Runs a command with `--json`.
fn ask(data: &Path, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(tonnage(arguments).arg("--json").arg("--data").arg(data));
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).expect("JSON")
}

/// Collects until the grace of everything is over and at least `expected` blobs went. Returns how many did, and their
/// bytes.
fn collected(data: &Path, expected: u64) -> (u64, u64) {
    let begun = Instant::now();
    let (mut blobs, mut bytes) = (0, 0);
    loop {
        let found = ask(data, &["collect"]);
        let count = |name: &str| found[name].as_u64().expect("a number");
        blobs += count("blobs");
        bytes += count("bytes");
        if count("in_grace") == 0 && count("leased") == 0 && blobs >= expected {
            return (blobs, bytes);
        }
        assert!(begun.elapsed() < DEADLINE, "{blobs} of {expected}: {found}");
    }
}

/// Guards: logical, unique and shared bytes of each repository and of a pattern, the same from a server and from the
/// closed store; a name that does not exist is exit code 9.
#[test]
fn usage_is_the_same_online_and_offline() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    let manifest = push_image(&server, "team/a", "v1", &[b"{}", &[1; 1000], &[2; 500]]);
    push_blob(&server, "team/b", &[2; 500]);
    push_blob(&server, "team/b", &[3; 20]);
    push_blob(&server, "teams", &[3; 20]);
    let online = ask(&data, &["usage", "team/*"]);
    let (all, kept) = (manifest.len() + 1502, manifest.len() + 1002);
    let entry = |name: &str, of: [usize; 6]| {
        json!({"repository": name, "blobs": of[0], "bytes": of[1], "unique_blobs": of[2], "unique_bytes": of[3],
            "shared_blobs": of[4], "shared_bytes": of[5]})
    };
    let expected = json!({
        "version": 1,
        "pattern": "team/*",
        "repositories": [
            entry("team/a", [4, all, 3, kept, 1, 500]),
            entry("team/b", [2, 520, 0, 0, 2, 520]),
        ],
        "total": {"repositories": 2, "blobs": 6, "bytes": all + 520, "unique_blobs": 3, "unique_bytes": kept,
            "shared_blobs": 3, "shared_bytes": 1020},
        "stored": {"blobs": 5, "bytes": all + 20},
    });
    assert_eq!(online, expected);
    let one = ask(&data, &["usage", "teams"]);
    assert_eq!(
        one["repositories"],
        json!([entry("teams", [1, 20, 0, 0, 1, 20])])
    );
    assert_eq!(ask(&data, &["usage"])["total"]["repositories"], 3);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    assert_eq!(ask(&data, &["usage", "team/*"]), expected);
    let (code, stdout, _) = run(tonnage(&["usage", "--data"]).arg(&data));
    assert!(code == 0 && stdout.contains("sum of 3"), "{stdout}");
    for (arguments, expected) in [
        (["usage", "team/c"], 9),
        (["usage", "a*b"], 2),
        (["usage", "--if-deleted=team/a:v2"], 9),
        (["usage", "--if-deleted=team/*"], 2),
    ] {
        let [command, argument] = arguments;
        let (code, _, stderr) = run(tonnage(&[command, argument, "--data"]).arg(&data));
        assert_eq!(code, expected, "{argument}: {stderr}");
    }
}

/// Guards: what `--if-deleted` says comes back is exactly what collection removes after the deletion: of a manifest
/// that shares content with others, of one that an index lists, and of a repository.
#[test]
fn a_deletion_frees_what_was_said() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let options = ["--collection-grace", "1s", "--collection-manual"];
    let server = Serving::start(&data, &options);
    let large = vec![9; 9 << 20];
    let first = push_image(
        &server,
        "team/app",
        "v1",
        &[b"{}", &large, b"both", b"elsewhere"],
    );
    let second = push_image(&server, "team/app", "v2", &[b"{ }", b"both", b"own"]);
    push_image(&server, "other", "v1", &[b"{  }", b"elsewhere"]);
    let index = push_index(&server, "team/app", "all", IMAGE, &first);
    let frees = |what: &str, blobs: &[&[u8]], shared: usize| {
        let said = ask(&data, &["usage", "--if-deleted", what]);
        let bytes: usize = blobs.iter().map(|blob| blob.len()).sum();
        assert_eq!(said["blobs"], blobs.len(), "{said}");
        assert_eq!(said["bytes"], bytes, "{said}");
        assert_eq!(said["shared_segment_bytes"], shared, "{said}");
        (blobs.len() as u64, bytes as u64)
    };
    let delete = |manifest: &[u8]| {
        let line = format!("DELETE /v2/team/app/manifests/{}", digest(manifest));
        assert_eq!(send(&server.url, &line, "text/plain", b"").0, 202);
    };

    let own: [&[u8]; 3] = [&second, b"{ }", b"own"];
    let said = frees("team/app:v2", &own, second.len() + 6);
    delete(&second);
    assert_eq!(collected(&data, said.0), said);

    // The index keeps the manifest's bytes, and not what the manifest lists.
    let what = format!("team/app@{}", digest(&first));
    let said = frees(&what, &[b"{}", &large, b"both"], 6);
    let whole: [&[u8]; 5] = [&index, &first, b"{}", &large, b"both"];
    frees("team/app", &whole, index.len() + first.len() + 6);
    delete(&first);
    assert_eq!(collected(&data, said.0), said);

    let said = frees("team/app", &[&index, &first], index.len() + first.len());
    let (code, _, stderr) = run(tonnage(&["repo", "delete", "team/app", "--data"]).arg(&data));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(collected(&data, said.0), said);
    let left = ask(&data, &["usage"]);
    assert_eq!(left["total"]["shared_bytes"], 0, "{left}");
    assert_eq!(left["total"]["bytes"], left["stored"]["bytes"], "{left}");

    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let (code, stdout, _) = run(tonnage(&["fsck", "--deep", "--data"]).arg(&data));
    assert_eq!(code, 0, "{stdout}");
}
