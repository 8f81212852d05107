//! The command `repair`, with a second server as the other registry.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::pushing::{digest, push_image};
use crate::serving::{Serving, get, run, send, tonnage};

fn json(data: &Path, arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = run(tonnage(arguments).arg("--json").arg("--data").arg(data));
    let parsed = serde_json::from_str(&stdout);
    (
        code,
        parsed.unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}")),
    )
}

/// Returns the segments, the largest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data.join("segments")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    files
}

fn stop(server: Serving) {
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
}

/// Guards: a blob with a wrong byte, and a config and a manifest whose segment is gone, are fetched from another
/// registry, under its names; they are served again, also after a restart, and `fsck` finds nothing. The exit codes are
/// e2fsck's. A closed store is repaired in the same way.
#[test]
fn repair_heals_from_another_registry() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let layer: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let peer = Serving::start(&directory.path().join("peer"), &[]);
    push_image(&peer, "mirror/a", "v1", &[b"{}", &layer]);
    let from = format!("{}/mirror", peer.url);
    let repair = ["repair", "--from", &from];

    let server = Serving::start(&data, &[]);
    let manifest = digest(&push_image(&server, "a", "v1", &[b"{}", &layer]));
    let (blob, config) = (digest(&layer), digest(b"{}"));
    let (code, found) = json(&data, &repair);
    assert_eq!((code, &found["healed"]), (0, &0.into()), "{found}");
    stop(server);
    let files = segments(&data);
    let file = std::fs::File::options().write(true).open(&files[0]);
    file.unwrap().write_all_at(&[99], 4096 + 5_000_001).unwrap();
    files[1..]
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());

    let server = Serving::start(&data, &[]);
    assert_eq!(json(&data, &["scrub"]).1["damaged"], 3);
    let status = |line: &str| send(&server.url, line, "text/plain", b"").0;
    for digest in [&blob, &config] {
        assert_eq!(status(&format!("HEAD /v2/a/blobs/{digest}")), 404);
    }
    assert_eq!(status(&format!("GET /v2/a/manifests/{manifest}")), 500);
    let (code, plan) = json(&data, &[&repair[..], &["--dry-run"]].concat());
    assert_eq!((code, &plan["damaged"]), (4, &3.into()), "{plan}");
    let wrong = format!("{}/elsewhere", peer.url);
    let (code, found) = json(&data, &["repair", "--from", &wrong]);
    assert_eq!((code, &found["left"]), (4, &3.into()), "{found}");
    let (code, found) = json(&data, &repair);
    assert_eq!(
        (code, &found["healed"], &found["left"]),
        (1, &3.into(), &0.into()),
        "{found}"
    );
    let blob_path = format!("/v2/a/blobs/{blob}");
    assert!(get(&server.url, &blob_path) == (200, layer.clone()));
    stop(server);

    let server = Serving::start(&data, &[]);
    assert!(get(&server.url, &blob_path) == (200, layer));
    assert_eq!(get(&server.url, "/v2/a/manifests/v1").0, 200);
    stop(server);
    assert_eq!(json(&data, &["fsck", "--deep"]).0, 0);

    std::fs::remove_file(&segments(&data)[0]).unwrap();
    assert_eq!(json(&data, &["fsck"]).0, 1);
    let (code, found) = json(&data, &repair);
    assert_eq!((code, &found["healed"]), (1, &1.into()), "{found}");
    assert_eq!(json(&data, &["fsck", "--deep"]).0, 0);
}

/// Guards: a wrong address, a password that is missing, and a file without certificates, or with too many, are errors
/// of usage.
#[test]
fn wrong_options_of_repair_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &[]);
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, "none").unwrap();
    let large = directory.path().join("large.pem");
    std::fs::write(&large, "x".repeat((128 << 10) + 1)).unwrap();
    let (file, large) = (file.to_str().unwrap(), large.to_str().unwrap());
    for (options, why) in [
        (&["--from", "ftp://h"][..], "neither http nor https"),
        (&["--from", "https://u:secret@h"], "--password-stdin"),
        (
            &["--from", "https://h", "--username", "u"],
            "TONNAGE_REPAIR_PASSWORD",
        ),
        (&["--from", "https://h", "--ca", file], "no certificate"),
        (&["--from", "https://h", "--ca", large], "more than 128 KiB"),
    ] {
        let (code, _, stderr) = run(tonnage(&["repair"]).args(options).arg("--data").arg(&data));
        assert!(code == 2 && stderr.contains(why), "{code} {stderr}");
    }
    drop(server);
}
