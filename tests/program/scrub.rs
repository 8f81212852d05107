//! The commands `scrub` and `jobs` on a running server.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tonnage_engine::{Algorithm, Digest};

use crate::serving::{Serving, get, run, send, tonnage};

/// Longer than this, no step takes on any machine.
const DEADLINE: Duration = Duration::from_mins(2);

fn command(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    run(tonnage(arguments).arg("--data").arg(data))
}

fn json(data: &Path, arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = command(data, arguments);
    let parsed = serde_json::from_str(&stdout);
    (
        code,
        parsed.unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}")),
    )
}

fn push(url: &str, content: &[u8]) -> String {
    let digest = Digest::of(Algorithm::Sha256, content).to_string();
    let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(send(url, &line, "application/octet-stream", content).0, 201);
    digest
}

/// Guards: `scrub` finds a byte that changed on the drive, names the tag that needs it, and exits with 1. HEAD is 404
/// from then on, until a push heals it. A healthy store is exit 0, a closed one is explained.
#[test]
fn scrub_finds_damage_and_names_what_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = push(&server.url, &content);
    let config = push(&server.url, b"{}");
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"{layer}","digest":"{digest}","size":{}}}]}}"#,
        content.len()
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let put = send(
        &server.url,
        "PUT /v2/a/manifests/v1",
        media_type,
        manifest.as_bytes(),
    );
    assert_eq!(put.0, 201);
    let (code, found) = json(&data, &["scrub", "--digests", "--json"]);
    assert_eq!(
        (code, &found["blobs"], &found["damaged"]),
        (0, &3.into(), &0.into())
    );

    let segments = std::fs::read_dir(data.join("segments")).unwrap();
    let largest = segments
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len());
    let file = std::fs::File::options()
        .write(true)
        .open(largest.unwrap())
        .unwrap();
    file.write_all_at(&[99], 4096 + 5_000_001).unwrap();
    let (code, found) = json(&data, &["scrub", "--json"]);
    assert_eq!((code, &found["damaged"]), (1, &1.into()), "{found}");
    let listed = &found["listed"][0];
    assert_eq!(
        (&listed["digest"], &listed["tags"][0]),
        (&digest.as_str().into(), &"a:v1".into())
    );
    let head = format!("HEAD /v2/a/blobs/{digest}");
    assert_eq!(send(&server.url, &head, "text/plain", b"").0, 404);
    let (code, stdout, _) = command(&data, &["scrub"]);
    assert!(
        code == 1 && stdout.contains("needed by tag a:v1"),
        "{stdout}"
    );
    push(&server.url, &content);
    assert_eq!(json(&data, &["scrub", "--json"]).0, 0);
    assert_eq!(
        get(&server.url, &format!("/v2/a/blobs/{digest}")).1,
        content
    );

    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let (code, _, stderr) = command(&data, &["scrub"]);
    assert!(
        code == 4 && stderr.contains("tonnage fsck"),
        "{code} {stderr}"
    );
}

/// Guards: `jobs` lists a running scrub, pauses and cancels it by its name or number. The command that waits for it
/// reports the end. A job that does not run is exit 9.
#[test]
fn jobs_are_listed_and_controlled() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    push(&server.url, &vec![7; 20 << 20]);
    assert_eq!(
        json(&data, &["jobs", "--json"]).1["jobs"],
        Value::Array(Vec::new())
    );
    let mut waiting = tonnage(&["scrub", "--rate", "1 MiB", "--data"]);
    let waiting = waiting.arg(&data).stderr(std::process::Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    let begun = Instant::now();
    let job = loop {
        let (_, found) = json(&data, &["jobs", "--json"]);
        if let Some(job) = found["jobs"].get(0) {
            break job.clone();
        }
        assert!(begun.elapsed() < DEADLINE);
    };
    assert_eq!(
        (&job["name"], &job["total"]),
        (&"scrub".into(), &(20 << 20).into())
    );
    assert_eq!(command(&data, &["jobs", "pause", "scrub"]).0, 0);
    assert_eq!(
        json(&data, &["jobs", "--json"]).1["jobs"][0]["paused"],
        true
    );
    assert_eq!(command(&data, &["jobs", "resume", "scrub"]).0, 0);
    let id = job["id"].to_string();
    assert_eq!(command(&data, &["jobs", "cancel", &id]).0, 0);
    let ended = waiting.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(
        ended.status.code() == Some(3) && stderr.contains("cancelled"),
        "{stderr}"
    );
    let (code, _, stderr) = command(&data, &["jobs", "cancel", &id]);
    assert!(
        code == 9 && stderr.contains("tonnage jobs"),
        "{code} {stderr}"
    );
}
