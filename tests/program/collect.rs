//! The command `collect`: what nothing references goes when its grace is over, on a running server.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tonnage_engine::{Algorithm, Digest};

use crate::serving::{Serving, get, run, send, tonnage};

/// Longer than this, the grace of 1 s does not take on any machine.
const DEADLINE: Duration = Duration::from_mins(2);

fn collect(data: &Path, more: &[&str]) -> Value {
    let (code, stdout, stderr) = run(tonnage(&["collect", "--json", "--data"])
        .arg(data)
        .args(more));
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).expect("JSON")
}

/// Guards: `collect` removes an unreferenced blob with its space once its grace is over, and a dry run says so before.
/// On a closed store it says what to do.
#[test]
fn garbage_is_collected_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let options = ["--collection-grace", "1s", "--collection-manual"];
    let server = Serving::start(&data, &options);
    let content = vec![7; 9 << 20];
    let digest = Digest::of(Algorithm::Sha256, &content).to_string();
    let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    let pushed = send(&server.url, &line, "application/octet-stream", &content);
    assert_eq!(pushed.0, 201);
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
    let blob = format!("/v2/a/blobs/{digest}");
    assert_eq!(get(&server.url, &blob).0, 200);
    let done = collect(&data, &[]);
    assert_eq!(done["listed"], previewed["listed"]);
    assert_eq!(
        (&done["bytes"], &done["segments"]),
        (&(9 << 20).into(), &1.into())
    );
    assert_eq!(get(&server.url, &blob).0, 404);

    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    assert_eq!(files(), 0);
    let (code, _, stderr) = run(tonnage(&["gc", "--data"]).arg(&data));
    assert!(
        code == 4 && stderr.contains("start the server"),
        "{code} {stderr}"
    );
}
