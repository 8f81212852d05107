//! Reads of a repository by its name, for tests. A repository that does not exist has no content.

use tonnage_engine::{Digest, ManifestEntry, Repository, Result, TagInfo, View};

/// The reads of [`Repository`], with the repository's name as the first argument.
pub trait ByName {
    /// Returns the view itself.
    fn view(&self) -> &View;

    /// Returns what `read` finds in the repository.
    fn within<T>(
        &self,
        name: &str,
        read: impl FnOnce(Repository<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.view().repository(name)?.map(read).transpose()
    }

    /// [`Repository::tag`].
    fn tag(&self, name: &str, tag: &str) -> Result<Option<TagInfo>> {
        Ok(self.within(name, |of| of.tag(tag))?.flatten())
    }

    /// [`Repository::tags`].
    fn tags(&self, name: &str, after: Option<&str>, limit: usize) -> Result<Vec<TagInfo>> {
        Ok(self
            .within(name, |of| of.tags(after, limit))?
            .unwrap_or_default())
    }

    /// [`Repository::manifest`].
    fn manifest(&self, name: &str, digest: &Digest) -> Result<Option<ManifestEntry>> {
        Ok(self.within(name, |of| of.manifest(digest))?.flatten())
    }

    /// [`Repository::manifests`].
    fn manifests(
        &self,
        name: &str,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<ManifestEntry>> {
        Ok(self
            .within(name, |of| of.manifests(after, limit))?
            .unwrap_or_default())
    }

    /// [`Repository::children`].
    fn children(&self, name: &str, digest: &Digest) -> Result<Vec<Digest>> {
        Ok(self
            .within(name, |of| of.children(digest, usize::MAX))?
            .unwrap_or_default())
    }

    /// [`Repository::is_linked`].
    fn linked(&self, name: &str, digest: &Digest) -> Result<bool> {
        Ok(self
            .within(name, |of| of.is_linked(digest))?
            .unwrap_or_default())
    }

    /// [`Repository::links`].
    fn links(&self, name: &str, after: Option<&Digest>, limit: usize) -> Result<Vec<Digest>> {
        Ok(self
            .within(name, |of| of.links(after, limit))?
            .unwrap_or_default())
    }

    /// [`Repository::referrers`].
    fn referrers(
        &self,
        name: &str,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let found = self.within(name, |of| of.referrers(subject, after, limit))?;
        Ok(found.unwrap_or_default())
    }
}

impl ByName for View {
    fn view(&self) -> &View {
        self
    }
}
