//! Checks that a store, whatever happened to it, is as DURABILITY.md promises.

use std::path::Path;

use tonnage_engine::fsck::{self, FsckOptions, FsckReport};
use tonnage_engine::{Digest, Error, Options, Store};
use tonnage_tests::machine::{Image, Machine, Outcome, Policy};

use super::workload::{Progress, Script};
use tonnage_tests::model::found;
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

pub use tonnage_tests::model::generate::options;
pub use tonnage_tests::model::recover::{empty_disk, store_path};

/// Checks an open store. Each repository is as its last acknowledged step left it, or as the unacknowledged one would.
/// Every blob and manifest reads back whole.
pub async fn contract(
    store: &Store,
    scripts: &[Script],
    progress: &[Progress],
) -> Result<(), String> {
    for (script, progress) in scripts.iter().zip(progress) {
        let found = found::repository(store, script.repository).await;
        let found = found.map_err(|error| error.to_string())?;
        let acknowledged = script.after(progress.done);
        let attempted = script.after(progress.begun);
        if found != acknowledged && found != attempted {
            return Err(format!(
                "{} after {progress:?}:\n found        {found:?}\n \
                 acknowledged {acknowledged:?}\n attempted    {attempted:?}",
                script.repository
            ));
        }
        for digest in found.links.iter().chain(found.manifests.keys()) {
            check_blob(store, digest).await?;
        }
    }
    Ok(())
}

/// Reads a blob and checks its digest.
async fn check_blob(store: &Store, digest: &Digest) -> Result<(), String> {
    let reader = store
        .open_blob(digest)
        .await
        .map_err(|error| format!("{digest}: {error}"))?;
    let reader = reader.ok_or_else(|| format!("{digest} is named and not stored"))?;
    let bytes = reader
        .read_whole(1 << 30)
        .await
        .map_err(|error| format!("{digest}: {error}"))?;
    let found = Digest::of(digest.algorithm(), &bytes);
    if found == *digest {
        Ok(())
    } else {
        Err(format!("{digest} reads as {found}"))
    }
}

/// Runs `scene` once, and again with a stop at each point of the disk from where it calls its argument. Opens all that
/// the disk may have after each stop with `options`, and calls `check` with the store and the point. Afterwards `fsck`
/// has no findings.
pub fn at_every_stop(
    options: &Options,
    scene: impl AsyncFn(&Machine, &dyn Fn()) -> Result<(), Error>,
    mut check: impl AsyncFnMut(&Store, u64),
) {
    const SEED: u64 = 5;
    let machine = Machine::new(SEED, &empty_disk());
    let from = std::cell::Cell::new(0);
    let begun = || from.set(machine.disk.points());
    let whole = machine.executor.block_on(scene(&machine, &begun));
    whole.expect("a sound disk");
    let (from, to) = (from.get(), machine.disk.points());
    for stop_after in from..to {
        let machine = Machine::new(SEED, &empty_disk());
        machine.disk.stop_after(stop_after);
        let stopped = machine.executor.run_until_crash(scene(&machine, &|| {}));
        assert!(matches!(stopped, Outcome::Crashed), "stop {stop_after}");
        for image in machine.disk.crash_images(&Policy::coarse(stop_after)) {
            let next = Machine::new(SEED, &image.image);
            next.executor.block_on(async {
                let opened = Store::open(next.env.clone(), &store_path(), options.clone()).await;
                let store = opened.expect("the store opens").0;
                check(&store, stop_after).await;
                store.close().await.expect("the store closes");
            });
            next.executor.settle();
            let report = fsck_image(SEED, &next.disk.live_image());
            let report = report.unwrap_or_else(|why| panic!("stop {stop_after}: {why}"));
            assert!(report.findings.is_empty(), "stop {stop_after}: {report:?}");
        }
    }
    println!("stopped at points {from} to {to}");
}

/// Runs `fsck` on a disk. All findings but damage are allowed after a crash.
pub fn fsck_image(seed: u64, image: &Image) -> Result<FsckReport, String> {
    let machine = Machine::new(seed, image);
    let checked = machine.executor.block_on(fsck_at(&machine, &store_path()));
    let report = checked.map_err(|error| format!("fsck: {error}"))?;
    if report.is_sound() {
        Ok(report)
    } else {
        Err(format!("fsck: {:?}", report.findings))
    }
}

async fn fsck_at(machine: &Machine, path: &Path) -> Result<FsckReport, Error> {
    fsck::check(&machine.env, path, FsckOptions { deep: true }, &|_, _| {}).await
}

/// Opens a crashed disk, checks the contract and closes. Runs `fsck` before and after.
pub fn recovered(
    seed: u64,
    image: &Image,
    scripts: &[Script],
    progress: &[Progress],
) -> Result<(), String> {
    let has_store = image.files.contains_key(&store_path().join("superblock"));
    if has_store {
        fsck_image(seed, image)?;
    }
    let machine = Machine::new(seed, image);
    machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &store_path(), options()).await;
        let (store, report) = opened.map_err(|error| format!("open: {error}"))?;
        if !report.segments_missing.is_empty() || !report.segments_truncated.is_empty() {
            return Err(format!("segments are missing or too short: {report:?}"));
        }
        contract(&store, scripts, progress).await?;
        store
            .close()
            .await
            .map_err(|error| format!("close: {error}"))
    })?;
    machine.executor.settle();
    let report = fsck_image(seed, &machine.disk.live_image())?;
    if !report.clean || !report.findings.is_empty() {
        return Err(format!("not clean after a clean stop: {report:?}"));
    }
    Ok(())
}
