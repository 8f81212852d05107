//! What `serve` and the offline commands refuse, with which exit code, and that they change nothing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use tonnage_engine::format::codec::checksum;
use tonnage_engine::format::superblock::Superblock;

use crate::serving::{Serving, get, run, tonnage};

const SERVE: [&str; 6] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--admin-listen",
    "off",
    "--data",
];

fn serve(data: &Path) -> (i32, String, String) {
    run(tonnage(&SERVE).arg(data))
}

/// Returns every file below `directory` with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn superblock(incompatible: u64) -> Vec<u8> {
    let superblock = Superblock {
        store_id: [1; 16],
        hash_key: [2; 16],
        compatible: 0,
        read_only_compatible: 0,
        incompatible,
        created_unix_ms: 0,
    };
    superblock.encode()
}

/// Runs a server on `data`, pushes an image that stays, and stops it.
fn fill(data: &Path) {
    let server = Serving::start(data, &[]);
    let smoke = ["smoke", &server.url, "--size", "1 MiB", "--keep"];
    let (code, stdout, _) = run(&mut tonnage(&smoke));
    assert_eq!(code, 0, "{stdout}");
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
}

/// Deletes the caches, so that the next open reads the journal.
fn remove_caches(data: &Path) {
    std::fs::remove_dir_all(data.join("runs")).unwrap();
    for number in 0..3 {
        // Some of them may not have been written.
        drop(std::fs::remove_file(
            data.join(format!("checkpoint.{number}")),
        ));
    }
}

/// Guards: only one process may open a store. Every command that needs it closed names that process's pid and the
/// command that works on an open store, ends with 5 and changes nothing.
#[test]
fn a_store_in_use_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::start(directory.path(), &[]);
    let pid = format!("process {}", server.child.id());
    let online = format!("tonnage stats --data {}", directory.path().display());
    for command in [&SERVE[..], &["fsck", "--data"]] {
        let (code, stdout, stderr) = run(tonnage(command).arg(directory.path()));
        assert_eq!((code, stdout.as_str()), (5, ""), "{command:?}: {stderr}");
        assert!(stderr.contains(&pid), "{command:?}: {stderr}");
        assert!(stderr.contains(&online), "{command:?}: {stderr}");
    }
}

/// Guards: a directory with other content ends with 6 and is unchanged; so does a missing one, for commands that create
/// none.
#[test]
fn a_foreign_directory_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("holiday.jpg"), "x").unwrap();
    let before = files(directory.path());
    let (code, _, stderr) = serve(directory.path());
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.contains("holiday.jpg"), "{stderr}");
    assert_eq!(files(directory.path()), before);
    for command in ["stats", "fsck"] {
        let (code, _, stderr) = run(&mut tonnage(&[command, "--data", "/nowhere/at/all"]));
        assert_eq!(code, 6, "{command}: {stderr}");
        assert!(stderr.contains("/nowhere/at/all"), "{stderr}");
    }
}

/// Guards: a store of a later format, or with an unknown feature, ends with 7 and is not changed.
#[test]
fn a_newer_store_is_left_alone() {
    let mut later = superblock(0);
    for copy in later.chunks_mut(4096) {
        copy[8..12].copy_from_slice(&2u32.to_le_bytes());
        let sum = checksum(&copy[..4092]);
        copy[4092..].copy_from_slice(&sum.to_le_bytes());
    }
    for bytes in [later, superblock(1 << 40)] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("superblock"), bytes).unwrap();
        let before = files(directory.path());
        for (code, _, stderr) in [
            serve(directory.path()),
            run(tonnage(&["stats", "--data"]).arg(directory.path())),
        ] {
            assert_eq!(code, 7, "{stderr}");
            assert!(stderr.contains("newer tonnage"), "{stderr}");
        }
        assert_eq!(files(directory.path()), before);
    }
}

/// Guards: a file in place of the directory, or above it, ends with 3 and says that a directory is required.
#[test]
fn a_file_is_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for data in [file.clone(), file.join("data")] {
        let (code, _, stderr) = serve(&data);
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains("must be a directory"), "{stderr}");
    }
    assert_eq!(std::fs::read(file).unwrap(), b"x");
}

/// Guards: bytes of acknowledged content that contradict their checksum end with 8, and nothing is changed.
#[test]
fn a_damaged_store_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fill(&data);
    remove_caches(&data);
    let journal = data.join("journal/0000000000000001.journal");
    for path in [journal, data.join("superblock")] {
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        // A flip in every block: in the journal that is the first frame, in the superblock every copy.
        for at in (100..damaged.len().min(4 * 4096)).step_by(4096) {
            damaged[at] ^= 1;
        }
        std::fs::write(&path, &damaged).unwrap();
        let before = files(&data);
        let (code, _, stderr) = serve(&data);
        assert_eq!(code, 8, "{}: {stderr}", path.display());
        assert!(stderr.contains("corrupt"), "{stderr}");
        assert_eq!(files(&data), before, "{}", path.display());
        std::fs::write(&path, whole).unwrap();
    }
    drop(Serving::start(&data, &[]));
}

/// Guards: a FIFO in place of any file of a store makes neither `fsck` nor a start wait for a writer.
#[test]
fn a_fifo_in_place_of_a_file_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fill(&data);
    for path in files(&data).into_keys() {
        let Ok(whole) = std::fs::read(&path) else {
            // An earlier start or stop removed it: another checkpoint counts now, or the run was merged.
            assert!(path.extension().is_some_and(|kind| kind == "run"));
            continue;
        };
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let name = path.strip_prefix(&data).unwrap();
        let (code, stdout, stderr) = run(tonnage(&["fsck", "--data"]).arg(&data));
        let notes = name.starts_with("reserve") || stdout.contains(&*path.to_string_lossy());
        assert!(
            notes || code != 0,
            "{}: {code} {stdout} {stderr}",
            name.display()
        );
        let mut server = tonnage(&SERVE)
            .arg(&data)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(server.stderr.take().unwrap()).lines();
        let mut until = said.by_ref().map(Result::unwrap);
        let decided = until.find(|line| line.contains("podman") || line.contains("FIFO"));
        assert!(
            decided.is_some(),
            "{}: it neither starts nor names the file",
            name.display()
        );
        let pid = server.id().to_string();
        let kill = std::process::Command::new("kill").arg(pid).status();
        assert!(kill.unwrap().success());
        let rest: Vec<_> = said.map(Result::unwrap).collect();
        let code = server.wait().unwrap().code();
        assert!(
            matches!(code, Some(0 | 3 | 8)),
            "{}: {code:?} {rest:?}",
            name.display()
        );
        if std::fs::remove_file(&path).is_ok() {
            std::fs::write(&path, whole).unwrap();
        }
    }
}

/// Returns everything that can be pulled: tags, manifests, blobs.
fn everything(url: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut fetch = |path: String| {
        let (status, body) = get(url, &path);
        assert_eq!(status, 200, "{path}");
        let document = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let new = found.insert(path, body).is_none();
        if new {
            document
        } else {
            serde_json::Value::Null
        }
    };
    let catalog = fetch("/v2/_catalog".to_owned());
    for name in catalog["repositories"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let tags = fetch(format!("/v2/{name}/tags/list"));
        let tags = tags["tags"].as_array().unwrap().clone();
        let mut manifests: Vec<_> = tags
            .iter()
            .map(|tag| tag.as_str().unwrap().to_owned())
            .collect();
        while let Some(reference) = manifests.pop() {
            let manifest = fetch(format!("/v2/{name}/manifests/{reference}"));
            let listed = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
            let digest = |entry: &serde_json::Value| entry["digest"].as_str().map(str::to_owned);
            manifests.extend(listed("manifests").iter().filter_map(digest));
            let mut blobs = listed("layers");
            blobs.push(manifest["config"].clone());
            for blob in blobs.iter().filter_map(digest) {
                fetch(format!("/v2/{name}/blobs/{blob}"));
            }
        }
    }
    found
}

/// Guards: the files of index and catalog are caches: if they are deleted while the store is closed, they are rebuilt
/// from the journal, and everything is served as before.
#[test]
fn caches_are_rebuilt_from_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fill(&data);
    let server = Serving::start(&data, &[]);
    assert!(server.banner.contains("checkpoint at"), "{}", server.banner);
    let before = everything(&server.url);
    assert!(before.len() >= 6, "{:?}", before.keys());
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    remove_caches(&data);
    let server = Serving::start(&data, &[]);
    assert!(server.banner.contains("no checkpoint"), "{}", server.banner);
    assert!(everything(&server.url) == before, "other content is served");
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let (code, stdout, _) = run(tonnage(&["fsck", "--data"]).arg(&data));
    assert!(code == 0 && stdout.ends_with("sound\n"), "{stdout}");
}
