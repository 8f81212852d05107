//! The content of an open store, as a value that compares with the model.

use crate::by_name::ByName as _;
use std::collections::{BTreeMap, BTreeSet};

use tonnage_engine::{Digest, Error, Store};

use super::state::{Manifest, Model, Repository};

const ALL: usize = 100_000;

/// Returns everything that readers of the store can see, read through every listing and each reverse listing.
pub async fn snapshot(store: &Store) -> Result<Model, Error> {
    let view = store.view();
    let mut found = Model::default();
    for name in view.read(|view| view.repositories(None, ALL)).await? {
        let repository = repository(store, &name).await?;
        found.repositories.insert(name, repository);
    }
    Ok(found)
}

/// Returns the content of one repository, which is empty if it does not exist.
pub async fn repository(store: &Store, name: &str) -> Result<Repository, Error> {
    let view = store.view();
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
