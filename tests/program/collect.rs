//! The commands `collect` and `compact`: what nothing references goes when its grace is over, and its space comes back.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::pushing::{push_blob, push_index};
use crate::serving::{Serving, get, run, tonnage};

/// Longer than this, the grace of 1 s does not take on any machine.
const DEADLINE: Duration = Duration::from_mins(2);

fn collect(data: &Path, more: &[&str]) -> Value {
    let (code, stdout, stderr) = run(tonnage(&["collect", "--json", "--data"])
        .arg(data)
        .args(more));
    // Progress is for terminals only.
    assert_eq!((code, stderr.as_str()), (0, ""));
    serde_json::from_str(&stdout).expect("JSON")
}

/// Guards: `collect` removes an unreferenced blob with its space once its grace is over, and a dry run says so before.
/// The result of a closed store has the same fields.
#[test]
fn garbage_is_collected_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let options = ["--collection-grace", "1s", "--collection-manual"];
    let server = Serving::start(&data, &options);
    let content = vec![7; 9 << 20];
    let digest = push_blob(&server, "a", &content);
    let files = || std::fs::read_dir(data.join("segments")).unwrap().count();
    assert_eq!(files(), 1);

    let begun = Instant::now();
    let previewed = loop {
        let found = collect(&data, &["--dry-run"]);
        if found["blobs"] == 1 {
            break found;
        }
        assert!(begun.elapsed() < DEADLINE, "{found}");
    };
    assert_eq!(previewed["listed"][0]["digest"], digest, "{previewed}");
    let done = collect(&data, &[]);
    assert_eq!(done["listed"], previewed["listed"]);
    assert_eq!(
        (&done["bytes"], &done["segments"]),
        (&(9 << 20).into(), &1.into())
    );
    let blob = format!("/v2/a/blobs/{digest}");
    assert_eq!(get(&server.url, &blob).0, 404);

    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    assert_eq!(files(), 0);
    let closed = collect(&data, &[]);
    let fields = |found: &Value| {
        found
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(fields(&closed), fields(&done));
    assert_eq!(
        (&closed["removed"], &closed["blobs"]),
        (&true.into(), &0.into())
    );
}

/// Guards: `compact` brings a closed store to the bytes of its live blobs, and a dry run changes none. `collect --full`
/// does the same on a server, where `compact` says so. A closed store counts grace by the wall clock.
#[test]
fn a_closed_store_is_compacted() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let options = ["--collection-grace", "1h", "--collection-manual"];
    let server = Serving::start(&data, &options);
    for salt in 0..8 {
        let content = vec![salt; 1 << 20];
        push_blob(&server, "a", &content);
        if salt == 0 {
            push_index(&server, "a", "v1", "application/octet-stream", &content);
        }
    }
    let compact = |more: &[&str]| {
        let command = ["compact", "--json", "--data"];
        let ran = run(tonnage(&command).arg(&data).args(more));
        (ran.0, serde_json::from_str::<Value>(&ran.1).ok(), ran.2)
    };
    let (code, _, stderr) = compact(&[]);
    assert!(
        code == 5 && stderr.contains("tonnage collect --full"),
        "{code} {stderr}"
    );
    assert_eq!(collect(&data, &["--full"])["in_grace"], 7);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));

    let files = || std::fs::read_dir(data.join("segments")).unwrap();
    let bytes = || {
        files()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum::<u64>()
    };
    let (whole, found) = (bytes(), compact(&["--dry-run"]).1.unwrap());
    assert_eq!(
        (&found["blobs"], &found["in_grace"]),
        (&0.into(), &7.into())
    );
    let begun = Instant::now();
    let found = loop {
        let found = compact(&["--dry-run", "--collection-grace", "1s"]);
        let found = found.1.unwrap();
        if found["blobs"] == 7 {
            break found;
        }
        assert!(begun.elapsed() < DEADLINE, "{found}");
    };
    assert_eq!(bytes(), whole);
    let done = compact(&["--collection-grace", "1s"]).1.unwrap();
    assert_eq!(done["listed"], found["listed"], "{done}");
    assert!(
        done["compaction"]["freed_bytes"].as_u64().unwrap() > 7 << 20,
        "{done}"
    );
    let live = 1 << 20;
    assert!(bytes() < live + live / 20, "{} bytes are left", bytes());
    let (code, stdout, stderr) = run(tonnage(&["fsck", "--deep", "--data"]).arg(&data));
    assert_eq!(code, 0, "{stdout}{stderr}");
}
