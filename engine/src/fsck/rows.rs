//! Checks that the rows agree with each other.
//!
//! Owns: every row against its reverse, every reference against its target, live bytes against the index, every row's
//! repository. Refuses: I/O beyond the pages of runs.

use std::collections::BTreeMap;
use std::path::Path;

use super::{FsckReport, Severity};
use crate::catalog::{Repository, View};
use crate::digest::Digest;
use crate::error::Result;
use crate::extent::SegmentId;
use crate::format::keys::{DamagedPlace, SegmentUse};
use crate::format::record::RecordPlaces;
use crate::recovery::apply::segment_path;
use crate::table::resident;
use crate::vocabulary::ManifestEntry;

/// Rows taken from a listing at a time.
const PAGE: usize = 1000;

/// Checks all rows of `view`.
pub(super) async fn check(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    segments(view, store, report).await?;
    damaged(view, store, report).await?;
    for (id, table) in view.read(View::ownerless).await? {
        let what = format!(
            "rows {:?} of repository {}, which neither exists nor was deleted",
            char::from(table),
            id.0
        );
        report.add(Severity::Damage, store, what);
    }
    let mut after = None;
    loop {
        let names = view
            .read(|view| view.repositories(after.as_deref(), PAGE))
            .await?;
        for name in &names {
            report.repositories += 1;
            repository(view, store, name, report).await?;
        }
        match names.last() {
            None => return Ok(()),
            Some(last) => after = Some(last.clone()),
        }
    }
}

/// Checks the live bytes of each segment against the index.
async fn segments(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut counted: BTreeMap<SegmentId, SegmentUse> = BTreeMap::new();
    let mut slots = view.slots();
    while let Some((_, slot)) = slots.next_resident().await? {
        let used = counted.entry(slot.extent.segment).or_default();
        // Rows may be forged.
        used.live_bytes = used.live_bytes.saturating_add(slot.extent.length);
        used.live_blobs += 1;
        if let Ok(places) = RecordPlaces::of(&slot.extent) {
            used.record_bytes = used.record_bytes.saturating_add(places.occupied_bytes());
            used.end = used.end.max(places.end);
        }
    }
    let mut segments = view.segments();
    while let Some((id, kept)) = segments.next_resident().await? {
        let found = counted.remove(&id).unwrap_or_default();
        // Records that are no longer named may have reached farther.
        let end = found.end.max(kept.end);
        if (SegmentUse { end, ..found }) != kept {
            let what = format!("segment {id}: the catalog counts {kept:?}, the index {found:?}");
            report.add(Severity::Damage, store, what);
        }
    }
    for id in counted.keys() {
        report.add(
            Severity::Damage,
            store,
            format!("segment {id}: in the index, but not in the catalog"),
        );
    }
    Ok(())
}

/// Checks the marks of damage: each must be of the stored extent, because a new copy clears the mark. Lists them all.
async fn damaged(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut marks = view.damaged();
    while let Some((digest, place)) = marks.next_resident().await? {
        let DamagedPlace { extent, proof } = place;
        if view
            .read(|view| view.blob(&digest))
            .await?
            .is_none_or(|blob| blob.extent != extent)
        {
            let what = format!("{digest} is marked damaged at {extent}, where it is not stored");
            report.add(Severity::Damage, store, what);
        } else {
            let what = format!(
                "{digest} at {extent} was found damaged by {proof}, and is not served; another one that finds all \
                 of it intact, or a push of the same content, clears the mark"
            );
            report.add(
                Severity::Leftover,
                &segment_path(store, extent.segment),
                what,
            );
        }
    }
    Ok(())
}

async fn repository(view: &View, store: &Path, name: &str, report: &mut FsckReport) -> Result<()> {
    let Some(of) = resident(|| view.repository(name)).await? else {
        report.add(
            Severity::Damage,
            store,
            format!("repository {name:?} is listed, but cannot be found"),
        );
        return Ok(());
    };
    if view
        .read(|view| view.repository_name(of.id()))
        .await?
        .as_deref()
        != Some(name)
    {
        report.add(
            Severity::Damage,
            store,
            format!("repository {name:?} has an id that does not lead back to it"),
        );
    }
    links(view, (of, name), store, report).await?;
    manifests(view, (of, name), store, report).await?;
    tags((of, name), store, report).await
}

async fn links(
    view: &View,
    (of, name): (Repository<'_>, &str),
    store: &Path,
    report: &mut FsckReport,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = resident(|| of.links(after.as_ref(), PAGE)).await?;
        for digest in &page {
            if view.read(|view| view.blob(digest)).await?.is_none() {
                report.add(
                    Severity::Damage,
                    store,
                    format!("{name}: blob {digest} is linked, but not stored"),
                );
            }
            check_suspect(view, (name, digest), store, report).await?;
            if !resident(|| of.is_holder_of(digest)).await? {
                report.add(
                    Severity::Damage,
                    store,
                    format!("{name}: the link to {digest} has no reverse"),
                );
            }
        }
        match page.last() {
            None => return Ok(()),
            Some(last) => after = Some(*last),
        }
    }
}

/// Checks that collection will find a linked blob that nothing references.
async fn check_suspect(
    view: &View,
    (name, digest): (&str, &Digest),
    store: &Path,
    report: &mut FsckReport,
) -> Result<()> {
    let known = |view: &View| Ok(view.referenced(digest)? || view.suspect(digest)?.is_some());
    if !view.read(known).await? {
        let what = format!("{name}: nothing references {digest}, and it is no suspect");
        report.add(Severity::Damage, store, what);
    }
    Ok(())
}

/// Checks that collection will find a manifest that nothing keeps.
async fn check_is_kept(
    (of, name): (Repository<'_>, &str),
    entry: &ManifestEntry,
    store: &Path,
    report: &mut FsckReport,
) -> Result<()> {
    let digest = &entry.digest;
    if !resident(|| of.is_kept_or_suspect(entry)).await? {
        let what = format!("{name}: nothing keeps the manifest {digest}, and it is no suspect");
        report.add(Severity::Damage, store, what);
    }
    Ok(())
}

async fn manifests(
    view: &View,
    (of, name): (Repository<'_>, &str),
    store: &Path,
    report: &mut FsckReport,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = resident(|| of.manifests(after.as_ref(), PAGE)).await?;
        for entry in &page {
            report.manifests += 1;
            let digest = &entry.digest;
            match view.read(|view| view.blob(digest)).await? {
                Some(blob) if blob.length == entry.size => {}
                Some(blob) => {
                    let what = format!(
                        "{name}: manifest {digest} has {} bytes, not {}",
                        blob.length, entry.size
                    );
                    report.add(Severity::Damage, store, what);
                }
                None => report.add(
                    Severity::Damage,
                    store,
                    format!("{name}: manifest {digest} is not stored"),
                ),
            }
            check_is_kept((of, name), entry, store, report).await?;
            if !resident(|| of.is_manifest_holder(digest)).await? {
                let what = format!("{name}: the manifest {digest} has no reverse");
                report.add(Severity::Damage, store, what);
            }
            for child in resident(|| of.children(digest, usize::MAX)).await? {
                if !resident(|| of.is_parent(&child, digest)).await? {
                    let what = format!("{name}: the edge from {digest} to {child} has no reverse");
                    report.add(Severity::Damage, store, what);
                }
            }
            if let Some(subject) = &entry.subject
                && !resident(|| of.is_referrer(subject, digest)).await?
            {
                let what =
                    format!("{name}: {digest} is not among the referrers of its subject {subject}");
                report.add(Severity::Damage, store, what);
            }
        }
        match page.last() {
            None => return Ok(()),
            Some(last) => after = Some(last.digest),
        }
    }
}

async fn tags(
    (of, name): (Repository<'_>, &str),
    store: &Path,
    report: &mut FsckReport,
) -> Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = resident(|| of.tags(after.as_deref(), PAGE)).await?;
        for tag in &page {
            report.tags += 1;
            if resident(|| of.manifest(&tag.digest)).await?.is_none() {
                let what = format!(
                    "{name}:{} points at {}, which the repository does not have",
                    tag.tag, tag.digest
                );
                report.add(Severity::Damage, store, what);
            }
            if !resident(|| of.is_tagged(&tag.digest, &tag.tag)).await? {
                report.add(
                    Severity::Damage,
                    store,
                    format!("{name}:{} has no reverse", tag.tag),
                );
            }
        }
        match page.last() {
            None => return Ok(()),
            Some(last) => after = Some(last.tag.clone()),
        }
    }
}
