//! Do the marks of deleted manifests and the rows that remain of them agree?
//!
//! Owns: marks, and edges and tags without a manifest. Refuses: rows of what is there (`rows`).

use std::path::Path;

use super::{FsckReport, Severity};
use crate::catalog::{View, keys};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::transaction::RepositoryId;

/// Checks all marks, and that what remains of a deleted manifest has one.
pub(super) fn check(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    marks(view, store, report)?;
    edges(view, store, report)?;
    tags(view, store, report)
}

fn marks(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut counted = 0;
    for mark in view.state().scan_prefix(&keys::all_retired(), None) {
        let (key, value) = mark?;
        counted += 1;
        let bad = |what| Error::bad_row(&key, &what);
        let (id, digest) = keys::retired_parts(&key).map_err(bad)?;
        let lsn = keys::decode_lsn(&value).map_err(bad)?;
        if lsn > view.lsn() {
            let (id, last) = (id.0, view.lsn());
            let what = format!(
                "repository {id}: manifest {digest} was deleted at LSN {lsn}, behind the last one, {last}"
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

/// Edges lie together by manifest: one look a manifest.
fn edges(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut last = None;
    for edge in view.state().scan_prefix(&keys::all_children(), None) {
        let (key, _) = edge?;
        let of = keys::parent_of(&key).map_err(|what| Error::bad_row(&key, &what))?;
        if last != Some(of) && !is_known(view, of)? {
            let ((id, digest), what) = (of, "has edges, and is neither there nor was deleted");
            let what = format!("repository {}: manifest {digest} {what}", id.0);
            report.add(Severity::Damage, store, what);
        }
        last = Some(of);
    }
    Ok(())
}

/// A tag and its reverse are there together, whether or not the tag counts.
fn tags(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut last = None;
    for reverse in view.state().scan_prefix(&keys::all_tagged(), None) {
        let (key, _) = reverse?;
        let parts = keys::tagged_parts(&key).map_err(|what| Error::bad_row(&key, &what))?;
        let (id, digest, tag) = parts;
        let row = view.tag_row(id, &tag)?;
        if row.is_none_or(|row| row.digest != digest) {
            let what = format!(
                "repository {}: tag {tag:?} is listed for {digest}, and does not point at it",
                id.0
            );
            report.add(Severity::Damage, store, what);
        }
        if last != Some((id, digest)) && !is_known(view, (id, digest))? {
            let what = format!(
                "repository {}: manifest {digest} has tags, and is neither there nor was deleted",
                id.0
            );
            report.add(Severity::Damage, store, what);
        }
        last = Some((id, digest));
    }
    Ok(())
}

/// Whether a manifest is there, or marked as deleted.
fn is_known(view: &View, (id, digest): (RepositoryId, Digest)) -> Result<bool> {
    Ok(view.has_manifest(id, &digest)? || view.retired_at(id, &digest)?.is_some())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::catalog::apply;
    use crate::digest::Algorithm;
    use crate::entry::{ManifestEntry, Origin};
    use crate::extent::{Lsn, SegmentId};
    use crate::format::transaction::{Operation, Transaction};
    use crate::state::State;
    use crate::table::{Base, Layers};

    const REPOSITORY: RepositoryId = RepositoryId(1);

    fn digest(of: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[of])
    }

    /// A store in which a manifest with an edge and a tag was deleted, and nothing cleared away yet.
    fn deleted() -> State {
        let mut state = State {
            lsn: Lsn(0),
            layers: Layers::new(Base::empty()),
            next_repository: 1,
            segment_limit: SegmentId(1),
            retired: 0,
            hash_key: [5; 16],
        };
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
        check(&View::new(state.into()), Path::new("store"), &mut report).unwrap();
        report
            .findings
            .into_iter()
            .map(|found| found.what)
            .collect()
    }

    /// Guards: what remains of a deleted manifest is no damage while its mark says so; without the mark, with a mark that no
    /// transaction can have made, with a wrong count of marks or half a tag it is.
    #[test]
    fn remains_need_a_mark() {
        let mark = keys::retired(REPOSITORY, &digest(1));
        assert_eq!(findings(deleted()), [""; 0]);
        let mut state = deleted();
        state.delete(mark.clone());
        state.retired = 0;
        let found = findings(state);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("has edges") && found[1].contains("has tags"));
        let mut state = deleted();
        state.put(mark, keys::encode_lsn(Lsn(9)));
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
        state.delete(keys::tag(REPOSITORY, "t"));
        let found = findings(state);
        assert!(
            found.len() == 1 && found[0].contains("does not point"),
            "{found:?}"
        );
    }
}
