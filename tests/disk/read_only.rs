//! A data directory that cannot be written to.

use tonnage_tests::mount::SmallDisk;

use crate::served::{SERVE, Served, run};

/// Guards: on a file system that refuses writes `serve` ends with 3 and says that the directory must be writable, for
/// a store that is there and for one that is not.
#[test]
fn a_read_only_disk_is_refused() {
    let Some(mut disk) = SmallDisk::mount(192, "serving from a read-only file system") else {
        return;
    };
    let data = disk.path().join("data");
    let (code, said) = Served::start(&data).unwrap().stop();
    assert_eq!(code, Some(0), "{said}");
    disk.make_read_only();
    for data in [data, disk.path().join("new")] {
        let (code, said) = run(&SERVE, &data);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("must be writable"), "{said}");
    }
}

/// Guards: `fsck` works on a snapshot that cannot be written to, of a store that was closed and of one whose server was killed.
#[test]
fn a_read_only_snapshot_is_checked() {
    let Some(mut disk) = SmallDisk::mount(384, "checking a read-only file system") else {
        return;
    };
    let (closed, killed) = (disk.path().join("closed"), disk.path().join("killed"));
    let (code, said) = Served::start(&closed).unwrap().stop();
    assert_eq!(code, Some(0), "{said}");
    Served::start(&killed).unwrap().kill();
    disk.make_read_only();
    for data in [closed, killed] {
        let (code, said) = run(&["fsck", "--deep"], &data);
        assert!(
            code == Some(0) && said.contains("sound"),
            "{code:?}: {said}"
        );
    }
}
