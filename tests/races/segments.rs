//! Handles of segment files: one for each file, closed in turn; a retired file is unlinked when its last holder drops
//! it.

use bytes::Bytes;
use shuttle::future::block_on;
use tonnage_engine::{BlobInfo, ClientId, FinishedBlob, Lsn, Store, UploadClaim, UploadSpec};
use tonnage_races::explore::explore;
use tonnage_races::world::{ROOT, World, digest, options, thread};

/// Makes a blob with a dedicated segment that no transaction names. When it is dropped, the segment is retired.
async fn uncommitted(store: &Store) -> FinishedBlob {
    let text = "x".repeat(100 << 10);
    let spec = UploadSpec {
        repository: "r".to_owned(),
        ..UploadSpec::default()
    };
    let id = store.begin_upload(spec).expect("there is room");
    let upload = store.open_upload(id, "r", UploadClaim::default()).await;
    let mut upload = upload.expect("nobody else has it");
    let name = digest(&text);
    upload.write(Bytes::from(text)).await.expect("a sound disk");
    upload.finish(name, None).await.expect("a sound disk")
}

fn retire() {
    let world = World::default();
    let store = world.open(options());
    let blob = block_on(uncommitted(&store));
    let name = blob.digest();
    let found = BlobInfo {
        length: blob.length(),
        extent: blob.extent(),
        generation: Lsn(0),
    };
    let segment = found.extent.segment.0;
    let path = std::path::Path::new(ROOT).join(format!("segments/{segment:016x}.segment"));
    assert!(world.disk.has(&path), "the blob has no dedicated segment");
    let readers = [0, 1].map(|_| {
        let store = store.clone();
        thread(async move { drop(store.open_found(&name, &found, ClientId::default()).await) })
    });
    let retire = shuttle::thread::spawn(move || drop(blob));
    for thread in readers.into_iter().chain([retire]) {
        thread.join().expect("a thread ends");
    }
    // The unlink is a task that runs by itself.
    for _ in 0..1000 {
        if !world.disk.has(&path) {
            return;
        }
        shuttle::thread::yield_now();
    }
    panic!("a retired segment without holders still exists");
}

/// Guards: a segment that is retired while others open it is unlinked when they drop it, and leaves the cache of open
/// files.
#[test]
fn retired_segments_go() {
    explore("retired_segments_go", 100, retire);
}
