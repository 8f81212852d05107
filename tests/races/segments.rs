//! Segment files: one handle each, closed in turn, unlinked when the last holder of a retired one lets go.

use std::sync::Arc;

use shuttle::future::block_on;
use tonnage_engine::extent::SegmentId;
use tonnage_engine::format::segment::SegmentClass;
use tonnage_engine::io::{Class, Directory, Io as _};
use tonnage_engine::segment::SegmentFiles;
use tonnage_races::explore::explore;
use tonnage_races::world::{World, thread};

fn retire() {
    let world = World::default();
    let dir = std::path::Path::new("/segments");
    block_on(world.disk.0.create_dir(Class::Directory.call(), dir)).expect("a sound disk");
    let opened = Directory::open(&world.disk.0, Class::Directory.call(), dir);
    let dir = block_on(opened).expect("a sound disk");
    let files = SegmentFiles::new(world.env(), dir, [7; 16], Arc::default(), 8);
    let id = SegmentId(1);
    drop(block_on(files.create(id, SegmentClass::Dedicated)).expect("a sound disk"));
    let readers = [0, 1].map(|_| {
        let files = Arc::clone(&files);
        thread(async move { drop(files.open(id).await) })
    });
    let retire = {
        let files = Arc::clone(&files);
        shuttle::thread::spawn(move || files.retire(id))
    };
    for thread in readers.into_iter().chain([retire]) {
        thread.join().expect("a thread ends");
    }
    // The unlink is a task; it needs nobody to run.
    for _ in 0..1000 {
        if !world.disk.has(&files.path(id)) {
            return;
        }
        shuttle::thread::yield_now();
    }
    panic!("a retired segment that nobody holds is still there");
}

/// Guards: a segment that is retired while others open it goes when they let go of it, and does not stay among the open ones.
#[test]
fn retired_segments_go() {
    explore("retired_segments_go", 100, retire);
}
