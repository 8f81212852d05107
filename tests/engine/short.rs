//! Short transfers of a FUSE file system, through each backend for real disks.

use std::path::Path;

use bytes::Bytes;
use tonnage_engine::io::threads::Threads;
use tonnage_engine::io::{Buffer, Class, Io, OpenMode, exact};
use tonnage_tests::faulty::{FaultyDisk, Rates};
use tonnage_tests::mount::or_skip;
use tonnage_tests::uring;

async fn check(io: &dyn Io, path: &Path, disk: &FaultyDisk, writes: bool) {
    let call = Class::UploadWrite.call();
    let file = io.open(call, path, OpenMode::CreateNew).await.unwrap();
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let content = Bytes::from(content);
    let rates = Rates {
        short: 5000,
        ..Rates::default()
    };
    if writes {
        disk.fail(rates);
    }
    let mut at = 0;
    for length in [1000, 50_000, 4096, 300_000, 444_904] {
        let part = content.slice(at..at + length);
        let slices = vec![part.slice(..100), part.slice(100..700), part.slice(700..)];
        exact::write_all(&*file, call, at as u64, slices)
            .await
            .unwrap();
        at += length;
    }
    assert_eq!(at, content.len());
    disk.fail(if writes { Rates::default() } else { rates });
    for length in [200_000, 4096, 800_000, 333] {
        for start in [0, 4096, 12_345] {
            let room = length.min(content.len() - start);
            let buffer = Buffer::unpooled(room);
            let read = exact::read_exact(&*file, call, start as u64, buffer)
                .await
                .unwrap();
            let same = read.filled() == &content[start..start + room];
            assert!(same, "{} {writes} {length} {start}", io.backend());
        }
    }
    disk.fail(Rates::default());
}

/// Guards: bytes are where they belong, however short the transfers are. A ring would read others there.
#[test]
fn short_transfers_keep_their_place() {
    crate::run(async |_| {
        let Some(disk) = or_skip(FaultyDisk::mount(1), "short transfers") else {
            return;
        };
        for writes in [false, true] {
            let path = disk.path().join(format!("threads{writes}"));
            check(&Threads::start().unwrap(), &path, &disk, writes).await;
        }
        for writes in [false, true] {
            let path = disk.path().join(format!("rings{writes}"));
            if let Some(rings) = uring::start() {
                check(&rings, &path, &disk, writes).await;
            }
        }
        assert!(disk.done().short > 0);
    });
}
