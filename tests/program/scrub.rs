//! The commands `scrub` and `jobs` on a running server.

use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pushing::{digest, push_blob, push_image};
use crate::serving::{Serving, get, run, send, send_over, tonnage};

/// Longer than this, no step takes on any machine.
const DEADLINE: Duration = Duration::from_mins(2);

fn command(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    run(tonnage(arguments).arg("--data").arg(data))
}

fn ask(data: &Path, arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = command(data, arguments);
    let parsed = serde_json::from_str(&stdout);
    (
        code,
        parsed.unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}")),
    )
}

/// Guards: `scrub` finds a byte that changed on the drive, names the tag that needs it, and exits with 1. HEAD is 404
/// from then on, until a push heals it. A healthy store is exit 0, a closed one is explained.
#[test]
fn scrub_finds_damage_and_names_what_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    push_image(&server, "a", "v1", &[b"{}", &content]);
    let digest = digest(&content);
    let (code, found) = ask(&data, &["scrub", "--digests", "--json"]);
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
    let (code, found) = ask(&data, &["scrub", "--json"]);
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
    push_blob(&server, "a", &content);
    assert_eq!(ask(&data, &["scrub", "--json"]).0, 0);
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

/// Guards: a segment with a damaged header, and one that compaction leaves, is named once in the log, however often
/// scrub and compaction meet it. Its blobs are served, and none counts as damaged.
#[test]
fn a_segment_that_cannot_be_compacted_is_logged_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let options = ["--collection-grace", "1s", "--collection-manual"];
    let server = Serving::start(&data, &options);
    let kept = vec![1; 100_000];
    push_image(&server, "a", "v1", &[&kept]);
    push_blob(&server, "a", &vec![2; 100_000]);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let segments: Vec<_> = std::fs::read_dir(data.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for path in &segments {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[99], 30).unwrap();
    }
    let server = Serving::start(&data, &options);
    let begun = Instant::now();
    while ask(&data, &["collect", "--json"]).1["blobs"] != 1 {
        assert!(begun.elapsed() < DEADLINE);
    }
    for _ in 0..2 {
        let (code, found) = ask(&data, &["scrub", "--json"]);
        assert_eq!((code, &found["blobs"]), (0, &2.into()), "{found}");
        let (code, found) = ask(&data, &["collect", "--full", "--json"]);
        assert_eq!(
            (code, &found["compaction"]["left"]),
            (0, &1.into()),
            "{found}"
        );
    }
    let read = get(&server.url, &format!("/v2/a/blobs/{}", digest(&kept)));
    assert!(read == (200, kept));
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    let lines = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    assert_eq!(
        lines("the header of a segment is damaged"),
        segments.len(),
        "{log}"
    );
    assert_eq!(lines("a segment could not be compacted"), 1, "{log}");
}

/// Guards: `jobs` lists a running scrub, pauses and cancels it by its name or number. The command that waits for it
/// reports the end. A job that does not run is exit 9. While it runs, a second one is not started: a request for the
/// same joins it, and `scrub` with other options is exit 5 and names it.
#[test]
fn jobs_are_listed_and_controlled() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    push_blob(&server, "a", &vec![7; 20 << 20]);
    assert_eq!(
        ask(&data, &["jobs", "--json"]).1["jobs"],
        Value::Array(Vec::new())
    );
    let mut waiting = tonnage(&["scrub", "--rate", "1 MiB", "--data"]);
    let waiting = waiting.arg(&data).stderr(std::process::Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    let begun = Instant::now();
    let job = loop {
        let (_, found) = ask(&data, &["jobs", "--json"]);
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
    assert_eq!(ask(&data, &["jobs", "--json"]).1["jobs"][0]["paused"], true);
    assert_eq!(command(&data, &["jobs", "resume", "scrub"]).0, 0);
    let id = job["id"].to_string();
    let (code, _, stderr) = command(&data, &["scrub"]);
    assert!(
        code == 5 && stderr.contains(&format!("scrub {id} runs already")),
        "{code} {stderr}"
    );
    let same = r#"{"operation":"start_scrub","digests":false,"bytes_per_second":1048576}"#;
    let stream = UnixStream::connect(data.join("admin.sock")).unwrap();
    let head = "POST /v1/admin HTTP/1.1\r\nHost: tonnage";
    let (status, body) = send_over(stream, head, "application/json", same.as_bytes());
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!({"operation": "start_scrub", "job": job["id"], "joined": true});
    assert_eq!((status, answer), (200, expected));
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
