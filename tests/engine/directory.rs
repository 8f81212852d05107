//! The directories in which a store is opened or created, and those that are left unchanged.

use std::os::unix::net::UnixListener;
use std::path::Path;

use tonnage_engine::fsck::{self, FsckOptions};
use tonnage_engine::{
    ADMIN_SOCKET, Algorithm, Change, ClientId, Digest, Error, Options, SegmentId, Store,
};

use tonnage_tests::batch_of;
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use crate::run;

async fn open(path: &Path) -> Result<bool, Error> {
    let env = tonnage_server::runtime::env().unwrap();
    let (store, report) = Store::open(env, path, Options::default()).await?;
    store.close().await?;
    Ok(report.created)
}

/// Guards: a store can be created on fresh ext4 file systems, also one for each directory, and over what a killed
/// server left before its store was created.
#[test]
fn a_store_is_created_on_a_fresh_file_system() {
    run(|dir| async move {
        let path = dir.path();
        for directory in ["", "journal", "segments", "uploads", "runs"] {
            std::fs::create_dir_all(path.join(directory).join("lost+found")).unwrap();
        }
        let _socket = UnixListener::bind(path.join(ADMIN_SOCKET)).unwrap();
        assert!(open(path).await.unwrap(), "an existing store was opened");
        assert!(path.join("lost+found").is_dir());
        assert!(!open(path).await.unwrap(), "a second store was created");
    });
}

/// Guards: a directory with other content is refused, the error names that content, and nothing is added to it.
#[test]
fn a_directory_with_other_content_is_unchanged() {
    run(|dir| async move {
        let path = dir.path();
        std::fs::create_dir(path.join("lost+found")).unwrap();
        std::fs::write(path.join("holiday.jpg"), "x").unwrap();
        let refused = open(path).await.unwrap_err();
        assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
        assert!(refused.to_string().contains("holiday.jpg"), "{refused}");
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["holiday.jpg", "lost+found"]);
    });
}

/// Guards: missing directories above the store's are created; a file in their place is an error, not a loop.
#[test]
fn missing_directories_above_are_created() {
    run(|dir| async move {
        let path = dir.path().join("a/b/c");
        assert!(open(&path).await.unwrap());
        assert!(!open(&path).await.unwrap());
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("link")).unwrap();
        for name in ["file/store", "file", "link/store"] {
            let refused = open(&dir.path().join(name)).await.unwrap_err();
            assert!(matches!(refused, Error::Io { .. }), "{name}: {refused}");
        }
        assert!(!dir.path().join("nowhere").exists());
    });
}

/// Stores a blob.
async fn put(store: &Store, content: &str) -> Digest {
    let blob = store.put_small(content.to_owned().into(), Algorithm::Sha256);
    let blob = blob.await.unwrap();
    let digest = blob.digest();
    let batch = batch_of("a", vec![blob], vec![Change::Link(digest)]);
    store.commit(batch).await.unwrap();
    digest
}

async fn locked(path: &Path) -> bool {
    let env = tonnage_server::runtime::env().unwrap();
    let opened = Store::open(env, path, Options::default()).await;
    matches!(opened, Err(Error::Locked { .. }))
}

/// Guards: a second process cannot open the store, whatever file was deleted, and by whatever path it reaches the
/// files.
#[test]
fn an_open_store_is_opened_by_nobody_else() {
    run(|dir| async move {
        let (path, moved) = (dir.path().join("store"), dir.path().join("moved"));
        let env = tonnage_server::runtime::env().unwrap();
        let (store, _) = Store::open(env, &path, Options::default()).await.unwrap();
        assert!(locked(&path).await);
        let hard_links = dir.path().join("hard-links");
        let copied = std::process::Command::new("cp")
            .arg("-al")
            .args([&path, &hard_links])
            .status();
        assert!(copied.unwrap().success());
        assert!(locked(&hard_links).await, "its journal is the same file");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(locked(&link).await);
        std::fs::rename(&path, &moved).unwrap();
        assert!(locked(&moved).await);
        for entry in std::fs::read_dir(&moved).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() && entry.file_name() != "superblock" {
                std::fs::remove_file(entry.path()).unwrap();
                assert!(locked(&moved).await, "without {:?}", entry.file_name());
            }
        }
        drop(store);
    });
}

/// Guards: a store whose directory is moved while it is open continues there. One created under the old name meanwhile
/// is another store. Each has what it acknowledged.
#[test]
fn a_store_that_is_moved_stays_one_store() {
    run(|dir| async move {
        let (path, moved) = (dir.path().join("store"), dir.path().join("moved"));
        let open = async |path: &Path| {
            let env = tonnage_server::runtime::env().unwrap();
            Store::open(env, path, Options::default()).await.unwrap().0
        };
        let first = open(&path).await;
        std::fs::rename(&path, &moved).unwrap();
        let second = open(&path).await;
        let (one, other) = (put(&first, "one").await, put(&second, "other").await);
        first.close().await.unwrap();
        second.close().await.unwrap();
        drop((first, second));
        for (path, has, lacks) in [(&moved, one, other), (&path, other, one)] {
            let store = open(path).await;
            assert!(store.open_blob(&has).await.unwrap().is_some());
            assert!(store.open_blob(&lacks).await.unwrap().is_none());
            store.close().await.unwrap();
        }
    });
}

/// Guards: a reader of a blob that was moved reads it at its new place. A reader of a deleted blob finds nothing.
/// Neither marks damage.
#[test]
fn a_blob_that_moved_is_read_where_it_is() {
    run(|dir| async move {
        let env = tonnage_server::runtime::env().unwrap();
        let path = dir.path().join("store");
        let (store, _) = Store::open(env, &path, Options::default()).await.unwrap();
        let there = put(&store, "content").await;
        let mut found = store.view().blob(&there).unwrap().unwrap();
        found.extent.segment = SegmentId(999);
        let client = ClientId::default();
        let reader = store.open_found(&there, &found, client).await.unwrap();
        assert_eq!(reader.unwrap().read_whole(100).await.unwrap().len(), 7);
        let gone = Digest::of(Algorithm::Sha256, b"gone");
        assert!(
            store
                .open_found(&gone, &found, client)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            !store.is_damaged(&there).await.unwrap() && !store.is_damaged(&gone).await.unwrap()
        );
        store.close().await.unwrap();
    });
}

/// Guards: a store that is opened and closed often merges the runs of its stops, although it is never busy.
#[test]
fn stops_leave_few_runs() {
    run(|dir| async move {
        let path = dir.path().join("store");
        let open = async || {
            let env = tonnage_server::runtime::env().unwrap();
            Store::open(env, &path, Options::default()).await.unwrap().0
        };
        for number in 0..6 {
            let store = open().await;
            put(&store, &number.to_string()).await;
            store.close().await.unwrap();
        }
        let store = open().await;
        let merged = async || store.stats().await.unwrap().runs.runs < 4;
        let mut looks = 0;
        while !merged().await {
            looks += 1;
            assert!(looks < 100_000, "nothing was merged");
            tokio::task::yield_now().await;
        }
        store.close().await.unwrap();
    });
}

/// Guards: a FIFO or directory in the place of a checkpoint, segment, upload log or run file fails no stop and no
/// checkpoint, and `fsck` names it.
#[test]
fn what_is_no_regular_file_is_passed_over() {
    run(|dir| async move {
        let kinds: [(&str, &[&str]); 4] = [
            ("mkfifo", &[]),
            ("mkdir", &[]),
            ("ln", &["-s", "/nonexistent"]),
            ("ln", &["-s", "checkpoint.0"]),
        ];
        let names = [
            "checkpoint.0",
            "checkpoint.1",
            "checkpoint.2",
            "segments/00000000ffffffff.segment",
            "uploads/00000000-0000-4000-8000-000000000000.upload",
            "runs/00000000ffffffff.run",
        ];
        for (number, (command, arguments)) in kinds.into_iter().enumerate() {
            let path = dir.path().join(number.to_string());
            assert!(open(&path).await.unwrap());
            for name in names {
                let odd = path.join(name);
                drop(std::fs::remove_file(&odd));
                let made = std::process::Command::new(command)
                    .args(arguments)
                    .arg(&odd)
                    .status();
                assert!(made.unwrap().success());
                if !odd.is_file() {
                    assert!(named_by_fsck(&path, &odd).await, "{command} {name}");
                }
                for round in 0..3 {
                    let env = tonnage_server::runtime::env().unwrap();
                    let opened = Store::open(env, &path, Options::default()).await;
                    let (store, report) = opened.unwrap();
                    assert!(round < 2 || report.replayed == 0, "{command} {name}");
                    put(&store, &format!("{name} {round}")).await;
                    let closed = store.close().await;
                    assert!(closed.is_ok(), "{command} {name}: {closed:?}");
                }
                drop(std::fs::remove_file(&odd).or_else(|_| std::fs::remove_dir(&odd)));
            }
        }
        let path = dir.path().join("0");
        std::fs::remove_dir_all(path.join("runs")).unwrap();
        std::fs::write(path.join("runs"), "").unwrap();
        assert!(named_by_fsck(&path, &path.join("runs")).await);
    });
}

/// Returns whether `fsck` finds no damage in the store in `path`, and names `odd`.
async fn named_by_fsck(path: &Path, odd: &Path) -> bool {
    let env = tonnage_server::runtime::env().unwrap();
    let checked = fsck::check(&env, path, FsckOptions::default(), &|_, _| {}).await;
    let report = checked.unwrap();
    assert!(report.is_sound(), "{report:?}");
    report.findings.iter().any(|finding| finding.path == odd)
}
