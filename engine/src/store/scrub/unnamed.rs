//! Live blobs that no intact frame names: their frames are damaged, or their segments are missing.
//!
//! Owns: finding them in the index, which reads all of it; so it happens only where there is damage. Refuses: checking
//! them (`pass`).

use std::collections::HashMap;

use bytes::Bytes;

use super::pass::{Pass, is_about_file};
use crate::catalog::View;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::keys;

impl Pass {
    /// Checks the live blobs of the segments that were noted, except for those that frames name.
    pub(super) async fn check_unnamed(&mut self) -> Result<()> {
        let unnamed = std::mem::take(&mut self.unnamed);
        if unnamed.is_empty() {
            return Ok(());
        }
        let view = self.view();
        let (mut places, mut hashed) = (Vec::new(), HashMap::new());
        let mut slots = view.slots();
        while let Some((key, slot)) = slots.next_resident().await? {
            let extent = slot.extent;
            let named = unnamed.get(&extent.segment);
            if named.is_none_or(|named| named.contains(&extent.offset)) {
                continue;
            }
            match keys::digest_of_blob(&key) {
                Some(digest) => places.push((digest, extent)),
                None => drop(hashed.insert(key, extent)),
            }
        }
        if !hashed.is_empty() {
            find_digests(&view, &mut hashed, &mut places).await?;
        }
        for extent in hashed.values() {
            tracing::error!(%extent, "a blob that nothing names any more cannot be checked");
        }
        places.sort_unstable_by_key(|(_, extent)| (extent.segment, extent.offset));
        for (digest, extent) in places {
            self.check_place(digest, extent).await?;
        }
        Ok(())
    }

    async fn check_place(&mut self, digest: Digest, extent: Extent) -> Result<()> {
        let opened = self.open(extent.segment).await;
        if !self.is_stored(&digest, &extent).await? {
            // Removed or moved meanwhile.
            return Ok(());
        }
        match opened {
            Ok(mut segment) => {
                self.check(&mut segment, digest, extent).await?;
                self.spend(&mut segment).await
            }
            Err(error) if is_about_file(&error) => {
                tracing::error!(%digest, %error, "scrub found a blob whose segment cannot be opened");
                self.mark_unopened(digest, extent);
                Ok(())
            }
            Err(error) if error.is_not_attempted() => {
                self.skip();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Finds the digests of index rows that have only a hash of it, among all digests that the catalog has. Moves them from
/// `hashed` to `places`.
async fn find_digests(
    view: &View,
    hashed: &mut HashMap<Bytes, Extent>,
    places: &mut Vec<(Digest, Extent)>,
) -> Result<()> {
    for prefix in keys::by_digest() {
        let mut rows = view.state().scan_prefix(&prefix, None);
        while let Some((key, _)) = rows.next_resident().await? {
            let digest = keys::first_digest(&key);
            let digest = digest.map_err(|what| Error::bad_row(&key, &what))?;
            let slot = keys::blob(&view.state().hash_key, &digest);
            if let Some(extent) = hashed.remove(&slot) {
                places.push((digest, extent));
            }
        }
    }
    Ok(())
}
