//! Checks the usage of repositories against their links and manifests.
//!
//! Owns: the count by a walk over these rows, deleted repositories included. Refuses: links and manifests against their
//! reverses (`rows`).

use std::path::Path;

use bytes::Bytes;

use super::{FsckReport, Severity};
use crate::catalog::View;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::keys::{self, RepositoryUsage};
use crate::format::transaction::RepositoryId;
use crate::table::Scan;

/// Checks every usage. Links, manifests and usages are sorted by repository, so one repository is counted at a time.
pub(super) async fn check(view: &View, store: &Path, report: &mut FsckReport) -> Result<()> {
    let mut owned = Owned::of(view).await?;
    let mut kept = view.usages();
    let mut next_kept = kept.next_resident().await?;
    loop {
        let ids = [owned.repository()?, next_kept.map(|(id, _)| id)];
        let Some(id) = ids.into_iter().flatten().min() else {
            return Ok(());
        };
        let counted = count(view, &mut owned, id).await?;
        let mut found = RepositoryUsage::default();
        if let Some((of, usage)) = next_kept
            && of == id
        {
            found = usage;
            next_kept = kept.next_resident().await?;
        }
        if found != counted {
            let id = id.0;
            let what = format!(
                "repository {id}: the catalog counts {found:?}, its links and manifests are {counted:?}"
            );
            report.add(Severity::Damage, store, what);
        }
    }
}

/// Counts what the repository `id` has, if it is the next one of `owned`.
async fn count(view: &View, owned: &mut Owned, id: RepositoryId) -> Result<RepositoryUsage> {
    let mut usage = RepositoryUsage::default();
    while let Some((of, digest)) = owned.next_of(id).await? {
        let blob = view.read(|view| view.blob(&digest)).await?;
        let bytes = blob.map_or(0, |blob| blob.length);
        usage.blobs += 1;
        // Rows may be forged.
        usage.bytes = usage.bytes.saturating_add(bytes);
        if is_unique(view, of, &digest).await? {
            usage.unique_blobs += 1;
            usage.unique_bytes = usage.unique_bytes.saturating_add(bytes);
        }
    }
    Ok(usage)
}

async fn is_unique(view: &View, id: RepositoryId, digest: &Digest) -> Result<bool> {
    let holders = view.read(|view| view.holder_ids(digest, 2)).await?;
    if holders.iter().any(|other| *other != id) {
        return Ok(false);
    }
    let mut manifests = view.manifest_holders(digest);
    while let Some(other) = manifests.next_resident().await? {
        if other != id {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The links and manifests of all repositories, by repository and digest.
struct Owned {
    links: Rows,
    manifests: Rows,
}

/// Rows of one table, with the key of the next one.
struct Rows {
    scan: Scan,
    next: Option<Bytes>,
}

impl Owned {
    async fn of(view: &View) -> Result<Self> {
        Ok(Self {
            links: Rows::under(view, &keys::all_links()).await?,
            manifests: Rows::under(view, &keys::all_manifests()).await?,
        })
    }

    /// Returns the repository and digest of the next row.
    fn peek(&self) -> Result<Option<(RepositoryId, Digest)>> {
        // Keys of both tables sort alike after their first byte.
        let rows = [&self.links, &self.manifests];
        let heads = rows.iter().filter_map(|rows| rows.next.as_ref());
        let next = heads.min_by_key(|key| key.get(1..));
        next.map(|key| keys::owned_digest(key).map_err(|what| Error::bad_row(key, &what)))
            .transpose()
    }

    fn repository(&self) -> Result<Option<RepositoryId>> {
        Ok(self.peek()?.map(|(id, _)| id))
    }

    /// Returns the next digest if it is one of `repository`. One that is linked and a manifest is returned once.
    async fn next_of(
        &mut self,
        repository: RepositoryId,
    ) -> Result<Option<(RepositoryId, Digest)>> {
        let Some((id, digest)) = self.peek()?.filter(|(id, _)| *id == repository) else {
            return Ok(None);
        };
        self.links.pass(&keys::link(id, &digest)).await?;
        self.manifests.pass(&keys::manifest(id, &digest)).await?;
        Ok(Some((id, digest)))
    }
}

impl Rows {
    async fn under(view: &View, prefix: &[u8]) -> Result<Self> {
        let mut rows = Self {
            scan: view.state().scan_prefix(prefix, None),
            next: None,
        };
        rows.read().await?;
        Ok(rows)
    }

    /// Moves past the next row if its key is `key`.
    async fn pass(&mut self, key: &[u8]) -> Result<()> {
        if self.next.as_deref() == Some(key) {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        self.next = self.scan.next_resident().await?.map(|(key, _)| key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::catalog::apply;
    use crate::digest::Algorithm;
    use crate::extent::Lsn;
    use crate::format::transaction::{Operation, Transaction};
    use crate::state::State;
    use crate::vocabulary::Origin;

    fn findings(state: &State) -> Vec<String> {
        let mut report = FsckReport::default();
        let view = View::new(state.clone().into());
        let check = check(&view, Path::new("store"), &mut report);
        check
            .now_or_never()
            .expect("all rows are in memory")
            .unwrap();
        let found = report.findings.into_iter();
        found.map(|found| found.what).collect()
    }

    /// Guards: a usage that differs from the links, that is missing, or of a repository without content is damage.
    #[test]
    fn a_wrong_usage_is_damage() {
        let mut state = State::empty([5; 16]);
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let link = |id| Operation::Link {
            repository: RepositoryId(id),
            digest,
        };
        let transaction = Transaction {
            lsn: Lsn(1),
            unix_ms: 1,
            origin: Origin::default(),
            operations: vec![link(1), link(3)],
        };
        apply::transaction(&mut state, &transaction).unwrap();
        assert_eq!(findings(&state), [""; 0]);
        let usage = state.get(&keys::usage(RepositoryId(1))).unwrap();
        for (id, wrong) in [(1, None), (2, usage), (3, None)] {
            let mut state = state.clone();
            state.layers.put(keys::usage(RepositoryId(id)), wrong);
            let found = findings(&state);
            let prefix = format!("repository {id}: the catalog counts");
            assert!(
                found.len() == 1 && found[0].starts_with(&prefix),
                "{found:?}"
            );
        }
    }
}
