//! The content of an open store, as a value that compares with the model.

use crate::by_name::ByName as _;
use std::collections::{BTreeMap, BTreeSet};

use tonnage_engine::{Digest, Error, RepositoryUsage, Store, View};

use super::state::{Manifest, Model, Repository};

const ALL: usize = 100_000;

/// Returns everything that readers of the store can see, read through every listing and each reverse listing.
pub async fn snapshot(store: &Store) -> Result<Model, Error> {
    snapshot_of(&store.view()).await
}

async fn snapshot_of(view: &View) -> Result<Model, Error> {
    let mut found = Model::default();
    for name in view.read(|view| view.repositories(None, ALL)).await? {
        let repository = repository_of(view, &name).await?;
        found.repositories.insert(name, repository);
    }
    Ok(found)
}

/// Returns the content of one repository, which is empty if it does not exist.
pub async fn repository(store: &Store, name: &str) -> Result<Repository, Error> {
    repository_of(&store.view(), name).await
}

async fn repository_of(view: &View, name: &str) -> Result<Repository, Error> {
    let mut found = Repository {
        links: view
            .read(|view| view.links(name, None, ALL))
            .await?
            .into_iter()
            .collect(),
        manifests: BTreeMap::new(),
        tags: view
            .read(|view| view.tags(name, None, ALL))
            .await?
            .into_iter()
            .map(|tag| (tag.tag, tag.digest))
            .collect(),
    };
    for entry in view.read(|view| view.manifests(name, None, ALL)).await? {
        let children = view
            .read(|view| view.children(name, &entry.digest))
            .await?
            .into_iter()
            .collect();
        let manifest = Manifest {
            size: entry.size,
            children,
            subject: entry.subject,
        };
        found.manifests.insert(entry.digest, manifest);
    }
    Ok(found)
}

/// Checks the reverse listings: referrers of each subject, holders of each link.
pub async fn reverses(store: &Store, found: &Model) -> Result<Result<(), String>, Error> {
    let view = store.view();
    for (name, repository) in &found.repositories {
        let subjects: BTreeSet<Digest> = repository
            .manifests
            .values()
            .filter_map(|manifest| manifest.subject)
            .chain(repository.manifests.keys().copied())
            .collect();
        for subject in subjects {
            let listed: BTreeSet<Digest> = view
                .read(|view| view.referrers(name, &subject, None, ALL))
                .await?
                .into_iter()
                .collect();
            if listed != repository.referrers(&subject) {
                return Ok(Err(format!("referrers of {subject} in {name}: {listed:?}")));
            }
        }
        for link in &repository.links {
            if !view
                .read(|view| view.holders(link, ALL))
                .await?
                .contains(name)
            {
                return Ok(Err(format!("{name} is not among the holders of {link}")));
            }
        }
    }
    Ok(Ok(()))
}

/// Compares the usage of each repository with that of the model. What rows of deleted repositories share with it is not
/// unique, so while there are such rows, less may be unique than in the model.
pub async fn usages(store: &Store) -> Result<Result<(), String>, Error> {
    let is_purged = store.stats().await?.deletions_unfinished == 0;
    let view = store.view();
    let model = snapshot_of(&view).await?;
    for (name, repository) in &model.repositories {
        let mut expected = RepositoryUsage::default();
        for digest in repository.digests() {
            let blob = view.read(|view| view.blob(&digest)).await?;
            let bytes = blob.map_or(0, |blob| blob.length);
            expected.blobs += 1;
            expected.bytes += bytes;
            if model.is_unique(name, &digest) {
                expected.unique_blobs += 1;
                expected.unique_bytes += bytes;
            }
        }
        let usage = view.read(|view| view.within(name, |of| of.usage())).await?;
        let usage = usage.unwrap_or_default();
        let is_less = usage.blobs == expected.blobs
            && usage.bytes == expected.bytes
            && usage.unique_blobs <= expected.unique_blobs
            && usage.unique_bytes <= expected.unique_bytes;
        if usage != expected && (is_purged || !is_less) {
            let what = format!("usage of {name}: {usage:?}, in the model {expected:?}");
            return Ok(Err(what));
        }
    }
    Ok(Ok(()))
}
