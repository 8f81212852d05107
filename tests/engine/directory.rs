//! Which directories a store is opened or made in, and which are left alone.

use std::os::unix::net::UnixListener;
use std::path::Path;

use tonnage_engine::io::threads::Threads;
use tonnage_engine::recovery::superblock::{ADMIN_SOCKET, Kind, look};
use tonnage_engine::{Error, Options, Store};

use crate::workbench::run;

async fn open(path: &Path) -> Result<bool, Error> {
    let env = tonnage_server::runtime::env();
    let (store, report) = Store::open(env, path, Options::default()).await?;
    store.close().await?;
    Ok(report.created)
}

/// Guards: a fresh ext4 file system, and what a server that was killed left behind before its store was made, are no
/// reason to refuse a directory.
#[test]
fn a_fresh_file_system_takes_a_store() {
    run(|dir| async move {
        let path = dir.path();
        std::fs::create_dir(path.join("lost+found")).unwrap();
        let _socket = UnixListener::bind(path.join(ADMIN_SOCKET)).unwrap();
        assert_eq!(look(&Threads::new(), path).await.unwrap(), Kind::Fresh);
        assert!(open(path).await.unwrap(), "a new store was to be made");
        assert!(path.join("lost+found").is_dir());
        assert!(!open(path).await.unwrap(), "the store was there");
    });
}

/// Guards: a directory with anything else in it is refused by the name of what is there, and nothing is added to it.
#[test]
fn a_directory_of_somebody_else_is_left_alone() {
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

/// Guards: directories above the store's are made, and something in their place is an error, not a loop.
#[test]
fn missing_directories_above_are_made() {
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
