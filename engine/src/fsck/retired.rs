//! Checks that the marks of deleted manifests agree with the rows that remain of them.
//!
//! Owns: marks, and edges and tags without a manifest. Refuses: rows of existing manifests (`rows`).

use std::path::Path;

use super::{FsckReport, Severity};
use crate::catalog::{Repository, View};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::keys;
use crate::format::transaction::RepositoryId;
use crate::table::resident;

/// Checks all marks, and that every deleted manifest of which rows remain has one.
pub(super) async fn check(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    marks(view, store, report).await?;
    edges(view, store, report).await?;
    tags(view, store, report).await
}

async fn marks(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut counted = 0;
    let mut marks = view.state().scan_prefix(&keys::all_retired(), None);
    while let Some((key, value)) = marks.next_resident().await? {
        counted += 1;
        let bad = |what| Error::bad_row(&key, &what);
        let (id, digest) = keys::owned_digest(&key).map_err(bad)?;
        let lsn = keys::decode_lsn(&value).map_err(bad)?;
        if lsn > view.lsn() {
            let (id, last) = (id.0, view.lsn());
            let what = format!(
                "repository {id}: manifest {digest} was deleted at LSN {lsn}, after the last one, {last}"
            );
            report.add(Severity::Damage, store, what);
        }
    }
    let kept = view.retired_manifests();
    if counted != kept {
        let what = format!("{kept} deleted manifests are counted, and {counted} are marked");
        report.add(Severity::Damage, store, what);
    }
    Ok(())
}

/// Checks that every edge has a manifest or a mark. Edges are sorted by manifest, so each manifest is looked up once.
async fn edges(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut last = None;
    let mut edges = view.state().scan_prefix(&keys::all_children(), None);
    while let Some((key, _)) = edges.next_resident().await? {
        let of = keys::parent_of(&key).map_err(|what| Error::bad_row(&key, &what))?;
        if last != Some(of) && !is_known(view, of).await? {
            let ((id, digest), what) = (of, "has edges, but neither exists nor was deleted");
            let what = format!("repository {}: manifest {digest} {what}", id.0);
            report.add(Severity::Damage, store, what);
        }
        last = Some(of);
    }
    Ok(())
}

/// Checks that every reverse of a tag has its tag, whether or not the tag counts, and a manifest or a mark.
async fn tags(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut last = None;
    let mut reverses = view.state().scan_prefix(&keys::all_tagged(), None);
    while let Some((key, _)) = reverses.next_resident().await? {
        let parts = keys::tagged_parts(&key).map_err(|what| Error::bad_row(&key, &what))?;
        let (id, digest, tag) = parts;
        let row = resident(|| Repository::new(view, id).tag_row(&tag)).await?;
        if row.is_none_or(|row| row.digest != digest) {
            let what = format!(
                "repository {}: tag {tag:?} is listed for {digest}, but does not point at it",
                id.0
            );
            report.add(Severity::Damage, store, what);
        }
        if last != Some((id, digest)) && !is_known(view, (id, digest)).await? {
            let what = format!(
                "repository {}: manifest {digest} has tags, but neither exists nor was deleted",
                id.0
            );
            report.add(Severity::Damage, store, what);
        }
        last = Some((id, digest));
    }
    Ok(())
}

/// Whether a manifest exists, or is marked as deleted.
async fn is_known(view: &View, (id, digest): (RepositoryId, Digest)) -> Result<bool> {
    let of = Repository::new(view, id);
    resident(|| Ok(of.has_manifest(&digest)? || view.retired_at(id, &digest)?.is_some())).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::catalog::apply;
    use crate::digest::Algorithm;
    use crate::extent::Lsn;
    use crate::format::transaction::{Operation, Transaction};
    use crate::state::State;
    use crate::vocabulary::{ManifestEntry, Origin};

    const REPOSITORY: RepositoryId = RepositoryId(1);

    fn digest(of: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[of])
    }

    /// Returns a store in which a manifest with an edge and a tag was deleted, and none of its rows removed yet.
    fn deleted() -> State {
        let mut state = State::empty([5; 16]);
        let (repository, digest) = (REPOSITORY, digest(1));
        let operations = vec![
            Operation::CreateRepository {
                id: repository,
                name: "a".to_owned(),
            },
            Operation::PutManifest {
                repository,
                entry: ManifestEntry {
                    digest,
                    size: 1,
                    children: vec![self::digest(2)],
                    subject: None,
                    attributes: Bytes::new(),
                },
            },
            Operation::SetTag {
                repository,
                tag: "t".to_owned(),
                digest,
                old: None,
            },
            Operation::RetireManifest { repository, digest },
        ];
        for (operation, lsn) in operations.into_iter().zip(1..) {
            let transaction = Transaction {
                lsn: Lsn(lsn),
                unix_ms: 1,
                origin: Origin::default(),
                operations: vec![operation],
            };
            apply::transaction(&mut state, &transaction).unwrap();
        }
        state
    }

    fn findings(state: State) -> Vec<String> {
        let mut report = FsckReport::default();
        let view = View::new(state.into());
        let check = check(&view, Path::new("store"), &mut report);
        check
            .now_or_never()
            .expect("all rows are in memory")
            .unwrap();
        report
            .findings
            .into_iter()
            .map(|found| found.what)
            .collect()
    }

    /// Guards: rows of a deleted manifest are no damage while its mark exists. A missing mark, an impossible one, a
    /// wrong count of marks and half a tag are damage.
    #[test]
    fn remains_need_a_mark() {
        let mark = keys::retired(REPOSITORY, &digest(1));
        assert_eq!(findings(deleted()), [""; 0]);
        let mut state = deleted();
        state.layers.put(mark.clone(), None);
        state.retired = 0;
        let found = findings(state);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("has edges") && found[1].contains("has tags"));
        let mut state = deleted();
        state.layers.put(mark, Some(keys::encode_lsn(Lsn(9))));
        let found = findings(state);
        assert!(found.len() == 1 && found[0].contains("LSN 9"), "{found:?}");
        let mut state = deleted();
        state.retired = 2;
        let found = findings(state);
        assert!(
            found.len() == 1 && found[0].contains("2 deleted"),
            "{found:?}"
        );
        let mut state = deleted();
        state.layers.put(keys::tag(REPOSITORY, "t"), None);
        let found = findings(state);
        assert!(
            found.len() == 1 && found[0].contains("does not point"),
            "{found:?}"
        );
    }
}
