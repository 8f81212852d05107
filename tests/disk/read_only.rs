//! A data directory that is read-only.

use tonnage_tests::mount::SmallDisk;

use crate::served::{SERVE, Served, run};

/// Guards: on a read-only file system `serve` ends with 3 and says that the directory must be writable, with an
/// existing store and without one.
#[test]
fn serve_refuses_a_read_only_disk() {
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

/// Guards: `fsck` works on a read-only snapshot, of a closed store and of one whose server was killed.
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
