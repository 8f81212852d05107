//! Scrub: damage is found before a client reads it, is known after a restart, and nothing else is marked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonnage_engine::format::checksum::{ChunkChecksums, encode_table};
use tonnage_engine::format::record::{FRAME_BYTES, FoundFrame, RecordFrame, RecordPlaces};
use tonnage_engine::{
    BlobInfo, Digest, Error, JobControl, JobKind, Layout, Options, ScrubReport, ScrubRequest, Store,
};
use tonnage_tests::machine::{Content, Image, Machine};
use tonnage_tests::model::content;
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use super::check;
use super::workload::{Script, manifest, push};

const SEED: u64 = 1;
/// The request of an operator who wants everything, and soon.
const ALL: ScrubRequest = ScrubRequest {
    digests: true,
    bytes_per_second: 0,
    list_max: 100,
};
/// The same without digests.
const CHECKSUMS: ScrubRequest = ScrubRequest {
    digests: false,
    ..ALL
};

/// Returns a script with contents of every size and algorithm, in shared and dedicated segments, and names of them.
fn script() -> Script {
    let mut steps: Vec<_> = [0, 1, 3, 6, 9, 11, 20].map(push).to_vec();
    steps.push(manifest(100, &[1, 9], "latest"));
    Script {
        repository: "library/a",
        steps,
    }
}

fn digests() -> Vec<Digest> {
    [0, 1, 3, 6, 9, 11, 20].map(content::digest).to_vec()
}

async fn open(machine: &Machine, options: Options) -> Store {
    let opened = Store::open(machine.env.clone(), &check::store_path(), options).await;
    opened.expect("the store opens").0
}

/// Returns a store on which the script ran and that was closed.
fn closed() -> Image {
    let machine = Machine::new(SEED, &check::empty_disk());
    machine.executor.block_on(async {
        let (store, script) = (open(&machine, check::options()).await, script());
        for step in &script.steps {
            let taken = script.take(&store, &machine.env, step).await;
            taken.expect("the step succeeds");
        }
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    machine.disk.live_image()
}

async fn stored(store: &Store, digest: &Digest) -> BlobInfo {
    let found = store.view().read(|view| view.blob(digest)).await;
    found.unwrap().expect("the blob is stored")
}

/// Returns where all blobs of a store are.
fn places(image: &Image) -> Vec<(Digest, PathBuf, RecordPlaces, BlobInfo)> {
    let machine = Machine::new(SEED, image);
    machine.executor.block_on(async {
        let store = open(&machine, check::options()).await;
        let mut places = Vec::new();
        for digest in digests() {
            let found = stored(&store, &digest).await;
            let name = format!("segments/{}.segment", found.extent.segment);
            let record = RecordPlaces::of(&found.extent).unwrap();
            places.push((digest, check::store_path().join(name), record, found));
        }
        places
    })
}

fn file<'a>(image: &'a mut Image, path: &Path) -> &'a mut Content {
    image.files.get_mut(path).expect("the file is there")
}

fn flip(image: &mut Image, path: &Path, at: u64) {
    let content = file(image, path);
    let mut byte = [0];
    assert_eq!(content.read(at, &mut byte), 1);
    content.write(at, &[byte[0] ^ 4]);
}

async fn marked(store: &Store) -> Vec<Digest> {
    let mut marked = Vec::new();
    for digest in digests() {
        if store.is_damaged(&digest).await.unwrap() {
            marked.push(digest);
        }
    }
    marked
}

/// Scrubs `image`, and checks that exactly `lost` are found: by the pass, by existence checks after it, and after a
/// restart. Then a push heals them.
fn finds(image: &Image, lost: &[Digest], why: &str) {
    let machine = Machine::new(SEED, image);
    machine.executor.block_on(async {
        let store = open(&machine, check::options()).await;
        let mut report = store.scrub(ALL).await.expect("the pass is complete");
        report.listed.sort();
        assert_eq!(report.listed, lost, "{why}");
        assert_eq!(marked(&store).await, lost, "{why}");
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    let machine = Machine::new(SEED, &machine.disk.live_image());
    machine.executor.block_on(async {
        let (store, script) = (open(&machine, check::options()).await, script());
        assert_eq!(marked(&store).await, lost, "{why}");
        for step in &script.steps {
            let taken = script.take(&store, &machine.env, step).await;
            taken.expect("the step succeeds");
        }
        assert_eq!(marked(&store).await, [], "{why}");
        let report = store.scrub(ALL).await.expect("the pass is complete");
        assert_eq!((report.damaged, report.skipped), (0, 0), "{why}");
        store.close().await.expect("the store closes");
    });
}

/// Guards: damage in any part of a record is found by scrub, although a damaged frame names nobody. So is a segment
/// that is missing. The marks are durable, nothing else is marked, and a push heals.
#[test]
fn scrub_finds_damage_before_a_read_does() {
    let image = closed();
    for (digest, path, record, found) in places(&image) {
        let mut parts = vec![("frame", record.frame + 50), ("table", record.table)];
        if found.length > 0 {
            parts.push(("payload", record.payload + found.length - 1));
        }
        for (part, at) in parts {
            if part == "table" && found.length == 0 {
                continue;
            }
            let mut damaged = image.clone();
            flip(&mut damaged, &path, at);
            finds(&damaged, &[digest], &format!("{part} of {digest}"));
        }
    }
    finds(&image, &[], "nothing is damaged");
    let all = places(&image);
    for (_, path, ..) in &all {
        let mut gone = image.clone();
        gone.files.remove(path);
        let inside = all.iter().filter(|(_, other, ..)| other == path);
        let mut lost: Vec<_> = inside.map(|(digest, ..)| *digest).collect();
        lost.sort();
        let machine = Machine::new(SEED, &gone);
        machine.executor.block_on(async {
            let store = open(&machine, check::options()).await;
            let mut listed = store.scrub(ALL).await.expect("it is complete").listed;
            listed.retain(|digest| digests().contains(digest));
            listed.sort();
            assert_eq!(listed, lost);
        });
    }
}

/// Replaces the content of a blob with another, whose checksums all match. Returns the blob.
fn exchange(image: &mut Image) -> Digest {
    let (digest, path, record, found) = places(image).remove(5);
    assert_eq!(found.extent.layout, Layout::Leading);
    let content = file(image, &path);
    let (mut payload, mut frame) = (vec![0; found.length as usize], [0; FRAME_BYTES]);
    content.read(record.payload, &mut payload);
    content.read(record.frame, &mut frame);
    payload[0] ^= 1;
    let mut checksums = ChunkChecksums::default();
    checksums.update(&payload);
    let table = encode_table(&checksums.table());
    let old = FoundFrame::decode(&frame).unwrap();
    let mut store = [0; 16];
    store[..8].copy_from_slice(&old.store_head);
    let frame = RecordFrame::new(store, digest, &found.extent, &table).unwrap();
    content.write(record.frame, &frame.encode());
    content.write(record.table, &table);
    content.write(record.payload, &payload);
    digest
}

/// Guards: content whose checksums all match, but which is not that of its digest, is found by a pass with digests. It
/// is not served afterwards, and passes and reads without digests do not clear the mark.
#[test]
fn content_of_another_digest_is_found_and_not_served() {
    let mut image = closed();
    let digest = exchange(&mut image);
    let machine = Machine::new(SEED, &image);
    machine.executor.block_on(async {
        let store = open(&machine, check::options()).await;
        assert_eq!(store.scrub(CHECKSUMS).await.unwrap().damaged, 0);
        assert_eq!(store.scrub(ALL).await.unwrap().listed, [digest]);
        assert_eq!(store.scrub(CHECKSUMS).await.unwrap().damaged, 0);
        let read = store.open_blob(&digest).await;
        assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
        assert_eq!(marked(&store).await, [digest]);
        let script = script();
        for step in &script.steps {
            let taken = script.take(&store, &machine.env, step).await;
            taken.expect("the step succeeds");
        }
        let healed = store
            .open_blob(&digest)
            .await
            .unwrap()
            .expect("it is stored");
        healed.read_whole(1 << 30).await.expect("it is whole");
        assert_eq!(store.scrub(ALL).await.unwrap().damaged, 0);
    });
}

async fn read_whole(store: &Store, digest: &Digest) -> Result<Vec<u8>, Error> {
    let reader = store.open_blob(digest).await?;
    reader.expect("it is stored").read_whole(1 << 30).await
}

/// Runs `work` in a store on `image`, and stops it.
fn run_on(image: &mut Image, closed_then: bool, work: impl AsyncFnOnce(&Store)) {
    let machine = Machine::new(SEED, image);
    machine.executor.block_on(async {
        let store = open(&machine, check::options()).await;
        work(&store).await;
        if closed_then {
            store.close().await.expect("the store closes");
        } else {
            // What was found is recorded by then.
            machine.env.clock.sleep(Duration::from_secs(1)).await;
            std::mem::forget(store);
        }
    });
    machine.executor.settle();
    *image = machine.disk.live_image();
}

/// Guards: content of another digest is not served after a restart either, whether the store was closed or killed
/// before, and although an earlier read had marked the blob by a weaker proof. Reads and passes without digests clear
/// nothing, and another restart neither.
#[test]
fn content_of_another_digest_is_not_served_after_a_restart() {
    for (read_first, closed_then) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut image = closed();
        if read_first {
            let (digest, path, record, _) = places(&image).remove(5);
            flip(&mut image, &path, record.payload);
            run_on(&mut image, closed_then, async |store| {
                let read = read_whole(store, &digest).await;
                assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
            });
            flip(&mut image, &path, record.payload);
        }
        let digest = exchange(&mut image);
        run_on(&mut image, closed_then, async |store| {
            assert_eq!(store.is_damaged(&digest).await.unwrap(), read_first);
            assert_eq!(store.scrub(ALL).await.unwrap().listed, [digest]);
        });
        for _ in 0..2 {
            run_on(&mut image, closed_then, async |store| {
                let read = store.open_blob(&digest).await;
                assert!(matches!(read, Err(Error::Corrupt(_))), "served: {read:?}");
                assert_eq!(store.scrub(CHECKSUMS).await.unwrap().damaged, 0);
                assert_eq!(marked(store).await, [digest]);
            });
        }
    }
}

/// Guards: damage that a read and then scrub found is not cleared by a read from the page cache, also after a restart.
/// A read of the drive that finds all of it intact clears it for good.
#[test]
fn damage_on_the_drive_is_not_cleared_by_a_cached_read() {
    for closed_then in [true, false] {
        let mut image = closed();
        let (digest, path, record, _) = places(&image).remove(5);
        flip(&mut image, &path, record.payload);
        run_on(&mut image, closed_then, async |store| {
            let read = read_whole(store, &digest).await;
            assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
        });
        run_on(&mut image, closed_then, async |store| {
            assert_eq!(marked(store).await, [digest]);
            assert_eq!(store.scrub(CHECKSUMS).await.unwrap().listed, [digest]);
        });
        flip(&mut image, &path, record.payload);
        run_on(&mut image, closed_then, async |store| {
            read_whole(store, &digest).await.expect("it is intact now");
            assert_eq!(marked(store).await, [digest], "a cached read cleared it");
            assert_eq!(store.scrub(CHECKSUMS).await.unwrap().damaged, 0);
            assert_eq!(marked(store).await, []);
        });
        run_on(&mut image, closed_then, async |store| {
            assert_eq!(marked(store).await, [], "a restart brought it back");
        });
    }
}

/// Where the result of a pass will be.
type Ended = Arc<Mutex<Option<Result<ScrubReport, Error>>>>;

/// Starts a pass beside all other work. Returns the number of its job.
fn start(machine: &Machine, store: &Store, request: ScrubRequest) -> (u64, Ended) {
    let job = store.begin_job(JobKind::Scrub);
    let (id, ended) = (job.id(), Arc::new(Mutex::new(None)));
    let (store, kept) = (store.clone(), Arc::clone(&ended));
    let pass = async move {
        let result = store.scrub_as(&job, request).await;
        *kept.lock() = Some(result);
    };
    machine
        .env
        .spawn
        .spawn("a scrub on request", Box::pin(pass));
    (id, ended)
}

/// Guards: a pass keeps its rate, shows its progress, waits while it is paused, and ends when it is cancelled or the
/// store closes.
#[test]
fn a_pass_is_a_job() {
    let image = closed();
    let machine = Machine::new(SEED, &image);
    machine.executor.block_on(async {
        let store = open(&machine, check::options()).await;
        let clock = &machine.env.clock;
        let slow = ScrubRequest {
            bytes_per_second: 16 << 10,
            ..ALL
        };
        let began = clock.monotonic();
        let report: ScrubReport = store.scrub(slow).await.unwrap();
        let took = clock.monotonic().saturating_sub(began).as_secs();
        // The first second is a burst.
        assert!(
            took + 1 >= report.bytes / slow.bytes_per_second - 1,
            "{took} s"
        );
        let (job, ended) = start(&machine, &store, slow);
        clock.sleep(Duration::from_secs(3)).await;
        let running = store.jobs();
        assert_eq!(running.len(), 1);
        assert_eq!(running[0].id, job);
        assert!(running[0].total > running[0].done, "{running:?}");
        assert!(store.control_job(job, JobControl::Pause));
        clock.sleep(Duration::from_secs(1000)).await;
        let paused = store.jobs();
        assert!(paused[0].paused && ended.lock().is_none());
        assert!(store.control_job(job, JobControl::Resume));
        clock.sleep(Duration::from_secs(1000)).await;
        assert!(store.jobs().is_empty() && !store.control_job(job, JobControl::Pause));
        let read = ended.lock().take().unwrap().unwrap().bytes;
        assert_eq!(read, report.bytes);
        let (job, ended) = start(&machine, &store, slow);
        store.control_job(job, JobControl::Cancel);
        clock.sleep(Duration::from_secs(100)).await;
        let ended = ended.lock().take();
        assert!(matches!(ended, Some(Err(Error::Cancelled))), "{ended:?}");
        let (job, _) = start(&machine, &store, slow);
        store.control_job(job, JobControl::Pause);
        store.close().await.expect("the store closes");
    });
}

/// Guards: without being asked, the store reads everything again and again, at its rate, from a random segment on, and
/// finds damage.
#[test]
fn passes_repeat_without_being_asked() {
    let mut image = closed();
    let (digest, path, record, _) = places(&image).remove(4);
    flip(&mut image, &path, record.payload);
    let machine = Machine::new(SEED, &image);
    machine.executor.block_on(async {
        let options = Options {
            scrub_bytes_per_second: 1 << 20,
            ..check::options()
        };
        let store = open(&machine, options).await;
        let clock = &machine.env.clock;
        clock.sleep(Duration::from_mins(30)).await;
        let first = store.scrub_totals();
        assert_eq!(first.damaged, 1);
        assert_eq!(marked(&store).await, [digest]);
        clock.sleep(Duration::from_hours(24)).await;
        let second = store.scrub_totals();
        assert_eq!((second.blobs, second.damaged), (2 * first.blobs, 2));
        assert!(second.last_success_unix_ms > first.last_success_unix_ms);
        clock.sleep(Duration::from_hours(31 * 24)).await;
        assert!(store.scrub_totals().last_digests_unix_ms > 0);
        store.close().await.expect("the store closes");
    });
}
