//! Deletions of repositories across a stop: a deleted repository is gone at once and permanently, and the next open
//! removes its remaining rows.

use bytes::Bytes;
use tonnage_engine::{
    Algorithm, Change, CollectionRequest, Digest, Error, FinishedBlob, ManifestEntry, Store,
};
use tonnage_tests::batch_of;
use tonnage_tests::by_name::ByName as _;
use tonnage_tests::machine::{Machine, Outcome, Policy};

use super::check;

const DOOMED: &str = "library/a";
const OTHER: &str = "b";
const TAGS: usize = 600;

async fn open(machine: &Machine) -> Store {
    let opened = Store::open(machine.env.clone(), &check::store_path(), check::options()).await;
    opened.expect("the store opens").0
}

async fn commit(
    store: &Store,
    name: &str,
    staged: Vec<FinishedBlob>,
    changes: Vec<Change>,
) -> Result<(), Error> {
    let batch = batch_of(name, staged, changes);
    store.commit(batch).await.map(drop)
}

/// Puts a manifest over a linked blob, both under the same name in either repository.
async fn fill(store: &Store, name: &str, number: u8) -> Result<Digest, Error> {
    let content = Bytes::from(vec![number; 100]);
    let blob = store.put_small(content, Algorithm::Sha256).await?;
    let child = blob.digest();
    commit(store, name, vec![blob], vec![Change::Link(child)]).await?;
    let text = Bytes::from(vec![number; 200]);
    let blob = store.put_small(text, Algorithm::Sha256).await?;
    let digest = blob.digest();
    let entry = ManifestEntry {
        digest,
        size: 200,
        children: vec![child],
        subject: Some(child),
        attributes: Bytes::new(),
    };
    let changes = vec![Change::PutManifest(entry)];
    commit(store, name, vec![blob], changes).await?;
    Ok(digest)
}

fn tag(number: usize, digest: Digest) -> Change {
    let tag = format!("a-tag-{number:04}");
    Change::SetTag { tag, digest }
}

/// Fills two repositories, deletes one, pushes to its name again, and commits to the other meanwhile.
async fn scene(store: &Store, deleted: &dyn Fn()) -> Result<(), Error> {
    let mut last = None;
    for number in 0..5 {
        last = Some(fill(store, DOOMED, number).await?);
        fill(store, OTHER, number).await?;
    }
    let Some(digest) = last else { return Ok(()) };
    let tags = (0..TAGS).map(|number| tag(number, digest)).collect();
    commit(store, DOOMED, vec![], tags).await?;
    commit(store, DOOMED, vec![], vec![Change::DeleteRepository]).await?;
    deleted();
    for number in 0..8 {
        commit(store, OTHER, vec![], vec![tag(number, digest)]).await?;
    }
    fill(store, DOOMED, 77).await.map(drop)
}

/// Polls until all rows are removed. The simulated clock does not advance while there is work to do.
async fn wait_for_row_removal(machine: &Machine, store: &Store) {
    for _ in 0..100 {
        if store.stats().await.unwrap().deletions_unfinished == 0 {
            return;
        }
        let pause = std::time::Duration::from_secs(1);
        machine.env.clock.sleep(pause).await;
    }
    panic!("the remaining rows are never removed");
}

/// Guards: DURABILITY.md, "Delete a repository": after a stop anywhere, the repository exists as a whole or not at all,
/// and a deleted one stays deleted. A repository created under its name is empty. The next open removes the remaining
/// rows and changes nothing else. A collection of a closed store waits for that.
#[test]
fn a_deleted_repository_stays_deleted_and_loses_its_rows() {
    let seed = 3;
    let machine = Machine::new(seed, &check::empty_disk());
    let from = std::cell::Cell::new(0);
    machine.executor.block_on(async {
        let store = open(&machine).await;
        let begun = || from.set(machine.disk.points());
        scene(&store, &begun).await.expect("a disk without faults");
        wait_for_row_removal(&machine, &store).await;
        assert!(
            store
                .view()
                .read(|view| Ok(view.repository(DOOMED)?.is_some()))
                .await
                .unwrap()
        );
        assert!(
            store
                .view()
                .read(|view| view.tags(DOOMED, None, 9))
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            store
                .view()
                .read(|view| view.manifests(DOOMED, None, 9))
                .await
                .unwrap()
                .len(),
            1
        );
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    let report = check::fsck_image(seed, &machine.disk.live_image()).expect("a sound store");
    assert_eq!((report.tags, report.manifests), (8, 6), "{report:?}");
    let (from, to) = (from.get(), machine.disk.points());
    println!("seed {seed}: stopped at points {} to {to}", from - 12);
    let mut interrupted = 0;
    for stop_after in (from - 12..to).step_by(7) {
        interrupted += u32::from(stopped(seed, stop_after, from));
    }
    assert!(interrupted > 2, "no stop fell between two steps");
}

/// Stops there and opens what the disk may have then. Returns whether rows were left to remove.
fn stopped(seed: u64, stop_after: u64, answered: u64) -> bool {
    let machine = Machine::new(seed, &check::empty_disk());
    machine.disk.stop_after(stop_after);
    let outcome = machine.executor.run_until_crash(async {
        let store = open(&machine).await;
        // It ends where the disk stops.
        drop(scene(&store, &|| {}).await);
        wait_for_row_removal(&machine, &store).await;
        store.close().await
    });
    assert!(matches!(outcome, Outcome::Crashed), "stop {stop_after}");
    let mut left = false;
    for image in machine
        .disk
        .crash_images(&Policy::coarse(seed ^ stop_after))
    {
        check::fsck_image(seed, &image.image).unwrap_or_else(|why| panic!("{stop_after}: {why}"));
        let next = Machine::new(seed, &image.image);
        next.executor.block_on(async {
            let store = open(&next).await;
            left |= store.stats().await.unwrap().deletions_unfinished > 0;
            let tags = store
                .view()
                .read(|view| view.tags(DOOMED, None, TAGS))
                .await
                .unwrap()
                .len();
            assert!(tags == 0 || tags == TAGS, "{stop_after}: {tags} tags");
            assert!(
                tags == 0 || stop_after < answered,
                "{stop_after}: the deleted repository is back"
            );
            let request = CollectionRequest {
                was_closed: true,
                ..CollectionRequest::default()
            };
            store.collect(request).await.expect("collected");
            let left_rows = store.stats().await.unwrap().deletions_unfinished;
            assert_eq!(left_rows, 0, "collection waits until all rows are removed");
            assert_eq!(
                store
                    .view()
                    .read(|view| view.manifests(OTHER, None, 9))
                    .await
                    .unwrap()
                    .len(),
                5
            );
            store.close().await.expect("the store closes");
        });
        next.executor.settle();
        let report = check::fsck_image(seed, &next.disk.live_image());
        let report = report.unwrap_or_else(|why| panic!("{stop_after}: {why}"));
        assert!(report.clean && report.findings.is_empty(), "{report:?}");
    }
    left
}
