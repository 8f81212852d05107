//! Is a store, after whatever happened to it, what DURABILITY.md promises?

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tonnage_engine::fsck::{self, FsckOptions, FsckReport};
use tonnage_engine::{Algorithm, Digest, Error, Options, Store};
use tonnage_tests::sim::{Image, SimEnv};

use super::workload::{Expected, Progress, Script};

/// Where the store is on the simulated disk.
pub fn store_path() -> PathBuf {
    PathBuf::from("/srv/store")
}

/// A disk with the directory that the store will be made in.
pub fn empty_disk() -> Image {
    Image::with_dir("/srv")
}

/// A store so small that every boundary is crossed: journal files roll, windows fill, uploads spill and checkpoint.
pub fn options() -> Options {
    Options {
        spill_threshold_bytes: 96 << 10,
        staging_budget_bytes: 1 << 20,
        shared_segment_bytes: 1 << 20,
        upload_checkpoint_bytes: 64 << 10,
        unsynced_bytes_max: 128 << 10,
        upload_window_bytes: 64 << 10,
        journal_file_bytes: 32 << 10,
        reserve_bytes: 64 << 10,
        ..Options::default()
    }
}

/// What a repository of an open store holds.
pub fn snapshot(store: &Store, repository: &str) -> Result<Expected, Error> {
    const ALL: usize = 10_000;
    let view = store.view();
    let mut found = Expected {
        links: view.links(repository, None, ALL)?.into_iter().collect(),
        manifests: BTreeMap::new(),
        tags: view
            .tags(repository, None, ALL)?
            .into_iter()
            .map(|tag| (tag.tag, tag.digest))
            .collect(),
        referrers: BTreeMap::new(),
    };
    for entry in view.manifests(repository, None, ALL)? {
        let children = view
            .children(repository, &entry.digest)?
            .into_iter()
            .collect();
        found.manifests.insert(entry.digest, children);
        if let Some(subject) = entry.subject {
            let referrers: BTreeSet<Digest> = view
                .referrers(repository, &subject, None, ALL)?
                .into_iter()
                .collect();
            found.referrers.insert(subject, referrers);
        }
    }
    Ok(found)
}

/// Forgets subjects without referrers: a listing cannot tell them from subjects that never had one.
fn trimmed(expected: &Expected) -> Expected {
    let mut trimmed = expected.clone();
    trimmed
        .referrers
        .retain(|_, referrers| !referrers.is_empty());
    trimmed
}

/// Checks an open store: each repository is as its last acknowledged step left it, or as the step in flight would; every
/// blob and manifest it holds reads back whole.
pub async fn contract(
    store: &Store,
    scripts: &[Script],
    progress: &[Progress],
) -> Result<(), String> {
    for (script, progress) in scripts.iter().zip(progress) {
        let found = snapshot(store, script.repository).map_err(|error| error.to_string())?;
        let acknowledged = Expected::after_steps(&script.steps, progress.done);
        let attempted = Expected::after_steps(&script.steps, progress.begun);
        let found = trimmed(&found);
        if found != trimmed(&acknowledged) && found != trimmed(&attempted) {
            return Err(format!(
                "{} after {progress:?}:\n found        {found:?}\n acknowledged {acknowledged:?}\n attempted    {attempted:?}",
                script.repository
            ));
        }
        for digest in found.links.iter().chain(found.manifests.keys()) {
            whole(store, digest).await?;
        }
    }
    Ok(())
}

/// Reads a blob and computes its digest anew.
async fn whole(store: &Store, digest: &Digest) -> Result<(), String> {
    let reader = store
        .open_blob(digest)
        .await
        .map_err(|error| format!("{digest}: {error}"))?;
    let reader = reader.ok_or_else(|| format!("{digest} is named and not stored"))?;
    let bytes = reader
        .read_whole(1 << 30)
        .await
        .map_err(|error| format!("{digest}: {error}"))?;
    let found = Digest::of(Algorithm::Sha256, &bytes);
    if found == *digest {
        Ok(())
    } else {
        Err(format!("{digest} reads as {found}"))
    }
}

/// Runs `fsck` on a disk. Everything but damage may be there after a crash.
pub fn fsck_image(seed: u64, image: &Image) -> Result<FsckReport, String> {
    let machine = SimEnv::new(seed, image);
    let checked = machine.executor.block_on(fsck_at(&machine, &store_path()));
    let report = checked.map_err(|error| format!("fsck: {error}"))?;
    if report.is_sound() {
        Ok(report)
    } else {
        Err(format!("fsck: {:?}", report.findings))
    }
}

async fn fsck_at(machine: &SimEnv, path: &Path) -> Result<FsckReport, Error> {
    fsck::check(&machine.env, path, FsckOptions { deep: true }, &|_, _| {}).await
}

/// Opens a crashed disk, checks the contract, closes, and checks with `fsck` before and after.
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
    let machine = SimEnv::new(seed, image);
    machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &store_path(), options()).await;
        let (store, report) = opened.map_err(|error| format!("open: {error}"))?;
        if !report.segments_missing.is_empty() {
            return Err(format!(
                "segments are missing: {:?}",
                report.segments_missing
            ));
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
