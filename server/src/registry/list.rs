//! Lists tags and repositories, page by page, in the order of bytes.

use super::{Error, Registry, Result};
use crate::access::{Authorized, Caller, ListRepositories, Pull};
use crate::oci::{Page, RepositoryName};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its entries.
    pub entries: Vec<String>,
    /// Whether more follow after the last entry.
    pub more: bool,
}

impl Listing {
    /// Builds a page from its entries and, if there is one, the next entry.
    fn of(mut entries: Vec<String>, limit: usize) -> Self {
        let more = entries.len() > limit;
        entries.truncate(limit);
        Self { entries, more }
    }
}

impl Registry {
    /// Lists tags of the repository.
    pub async fn list_tags(&self, pull: &Authorized<Pull>, page: &Page) -> Result<Listing> {
        let repository = pull.repository();
        let view = self.view().await?;
        let Some(found) = view.repository(repository.as_str()).await? else {
            return Err(Error::NameUnknown(repository.clone()));
        };
        if page.limit == 0 {
            return Ok(Listing {
                entries: Vec::new(),
                more: false,
            });
        }
        let tags = found.tags(page.last.as_deref(), page.limit + 1).await?;
        Ok(Listing::of(tags, page.limit))
    }

    /// Returns a number that no other repository ever has, also not a later one of this name; `None` if there is none.
    /// It must reach only those who may know of the repository.
    pub(crate) async fn incarnation(&self, name: &RepositoryName) -> Result<Option<u64>> {
        let found = self.view().await?.repository(name.as_str()).await?;
        Ok(found.map(|repository| repository.incarnation()))
    }

    /// Returns whether a repository is the one for which the token of a request was issued, if it names one.
    pub(crate) async fn is_of_token(&self, caller: &Caller, name: &RepositoryName) -> Result<bool> {
        let scope = caller.scope.as_ref();
        match scope.and_then(|scope| scope.incarnation(name)) {
            Some(expected) => Ok(self.incarnation(name).await? == Some(expected)),
            None => Ok(true),
        }
    }

    /// Lists the names of all repositories.
    pub async fn list_repositories(
        &self,
        _: &Authorized<ListRepositories>,
        page: &Page,
    ) -> Result<Listing> {
        if page.limit == 0 {
            return Ok(Listing {
                entries: Vec::new(),
                more: false,
            });
        }
        let view = self.view().await?;
        let names = view
            .repositories(page.last.as_deref(), page.limit + 1)
            .await?;
        Ok(Listing::of(names, page.limit))
    }
}
