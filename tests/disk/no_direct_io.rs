//! A file system that refuses direct I/O.

use std::os::unix::fs::FileExt as _;

use tonnage_tests::client::Client;
use tonnage_tests::content::Content;
use tonnage_tests::faulty::{FaultyDisk, Rates};
use tonnage_tests::mount::or_skip;

use crate::full::{MIB, put};
use crate::served::{Served, run};

/// Guards: where direct I/O is refused, scrub checks everything in the same way: it reads every blob, and finds a byte
/// that changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrub_works_without_direct_io() {
    let disk = or_skip(FaultyDisk::mount(1), "scrub without direct I/O");
    let Some(disk) = disk else { return };
    disk.fail(Rates {
        direct: 10_000,
        ..Rates::default()
    });
    let data = disk.path().join("data");
    let served = Served::start(&data).unwrap();
    let client = Client::new(served.address);
    // In both shared segments and in one of its own, of several windows and not of whole blocks.
    for (seed, length) in [(1, 1), (2, 100_000), (3, 3 * MIB + 1), (4, 9 * MIB + 5000)] {
        let blob = Content::new(seed, length).bytes();
        put(&client, blob.to_vec()).await.expect(201);
    }
    let scrub = || {
        let (code, said) = run(&["scrub", "--digests", "--json"], &data);
        let found: serde_json::Value = serde_json::from_str(&said).expect(&said);
        (code, found["blobs"].as_u64(), found["damaged"].as_u64())
    };
    assert_eq!(scrub(), (Some(0), Some(4), Some(0)));
    let refused = disk.done().direct;
    assert!(refused >= 3, "{refused} opens were refused");

    let segments = std::fs::read_dir(data.join("segments")).unwrap();
    let paths = segments.map(|entry| entry.unwrap().path());
    let largest = paths.max_by_key(|path| path.metadata().unwrap().len());
    let mut options = std::fs::File::options();
    options.read(true).write(true);
    let file = options.open(largest.unwrap()).unwrap();
    let (mut byte, at) = ([0], 4096 + 5 * MIB);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    assert_eq!(scrub(), (Some(1), Some(3), Some(1)));
    assert!(disk.done().direct > refused);
    let (code, said) = served.stop();
    assert_eq!(code, Some(0), "{said}");
}
