//! `tonnage usage`: prints what repositories have, or what a deletion would free.
//!
//! Owns: the text and JSON forms. Refuses: holding more than a page of repositories, and deleting anything.

use std::str::FromStr;

use serde::Serialize;
use tonnage_server::admin::{
    DeletionEffect, GetStats, ListUsage, ManifestReference, TryDeletion, UsageEntry,
};
use tonnage_server::oci::{Digest, RepositoryName, RepositoryPattern, Tag};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, List};
use crate::target::{Target, TargetArguments};
use crate::units::format_about;

/// Arguments of `usage`.
#[derive(Debug, clap::Args)]
pub(crate) struct Usage {
    /// The repositories: a name, everything below one (`team/*`), or `*`
    #[arg(value_name = "REPO", default_value = "*")]
    pattern: RepositoryPattern,
    /// Print what the deletion of a repository or manifest would free; delete nothing
    #[arg(long, value_name = "REPO[:TAG|@DIGEST]", conflicts_with = "pattern")]
    if_deleted: Option<Deletion>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// What would be deleted.
#[derive(Debug, Clone)]
struct Deletion {
    repository: RepositoryName,
    manifest: Option<ManifestReference>,
}

impl FromStr for Deletion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A digest has a colon, too.
        let (repository, manifest) = if let Some((repository, digest)) = text.split_once('@') {
            let digest: Digest = digest.parse().map_err(|error| format!("{error}"))?;
            let manifest = ManifestReference::Digest(digest.to_string());
            (repository, Some(manifest))
        } else if let Some((repository, tag)) = text.split_once(':') {
            let tag: Tag = tag.parse().map_err(|error| format!("{error}"))?;
            (repository, Some(ManifestReference::Tag(tag.to_string())))
        } else {
            (text, None)
        };
        let repository = repository.parse().map_err(|error| format!("{error}"))?;
        Ok(Self {
            repository,
            manifest,
        })
    }
}

/// Prints usages, or the effect of a deletion.
pub(crate) fn run(arguments: &Usage) -> Result<Exit, Failure> {
    let mut target = Target::find(&arguments.target)?;
    match &arguments.if_deleted {
        Some(deletion) => print_effect(&mut target, deletion, arguments.json)?,
        None => print_usage(&mut target, &arguments.pattern, arguments.json)?,
    }
    Ok(Exit::Done)
}

/// The sum of the usages of repositories. A blob counts in each of them that has it.
#[derive(Debug, Default, Serialize)]
struct Total {
    repositories: u64,
    blobs: u64,
    bytes: u64,
    unique_blobs: u64,
    unique_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
}

impl Total {
    fn add(&mut self, entry: &UsageEntry) {
        self.repositories += 1;
        self.blobs += entry.blobs;
        self.unique_blobs += entry.unique_blobs;
        self.shared_blobs += entry.shared_blobs;
        for (sum, bytes) in [
            (&mut self.bytes, entry.bytes),
            (&mut self.unique_bytes, entry.unique_bytes),
            (&mut self.shared_bytes, entry.shared_bytes),
        ] {
            *sum = sum.saturating_add(bytes);
        }
    }
}

fn print_usage(
    target: &mut Target,
    pattern: &RepositoryPattern,
    json: bool,
) -> Result<(), Failure> {
    let mut request = ListUsage {
        pattern: pattern.to_string(),
        last: None,
    };
    // Read before anything is printed, so that a failure prints no part of a result.
    let stored = target.ask(GetStats {})?;
    let mut page = target.ask(request.clone())?;
    if !json {
        output::result(&line([
            "logical",
            "unique",
            "shared",
            "blobs",
            "repository",
        ]))?;
    }
    let mut list = List::new(json, "repositories").with("pattern", &request.pattern);
    let mut total = Total::default();
    loop {
        for entry in &page.repositories {
            total.add(entry);
            list.entry(entry, || {
                let sizes = (entry.bytes, entry.unique_bytes, entry.shared_bytes);
                row(sizes, entry.blobs, &entry.repository)
            })?;
        }
        match page.repositories.pop() {
            Some(last) if page.more => request.last = Some(last.repository),
            _ => break,
        }
        page = target.ask(request.clone())?;
    }
    let (blobs, bytes) = (stored.blobs, stored.blob_bytes);
    let fields = [
        ("total", serde_json::json!(total)),
        (
            "stored",
            serde_json::json!({"blobs": blobs, "bytes": bytes}),
        ),
    ];
    list.end_with(&fields)?;
    if !json {
        let sizes = (total.bytes, total.unique_bytes, total.shared_bytes);
        let sum = format!(
            "(sum of {}; shared blobs count in each)",
            total.repositories
        );
        output::result(&row(sizes, total.blobs, &sum))?;
        let bytes = format_about(bytes);
        output::result(&format!(
            "the store has {blobs} blobs, {bytes}, each counted once"
        ))?;
    }
    Ok(())
}

fn row((bytes, unique, shared): (u64, u64, u64), blobs: u64, name: &str) -> String {
    let sizes = [bytes, unique, shared].map(format_about);
    let [bytes, unique, shared] = &sizes;
    line([bytes, unique, shared, &blobs.to_string(), name])
}

/// Formats a line of the table. The name is last, because only its length varies.
fn line([bytes, unique, shared, blobs, name]: [&str; 5]) -> String {
    format!("{bytes:>10}  {unique:>10}  {shared:>10}  {blobs:>8}  {name}")
}

fn print_effect(target: &mut Target, deletion: &Deletion, json: bool) -> Result<(), Failure> {
    let effect = target.ask(TryDeletion {
        repository: deletion.repository.to_string(),
        manifest: deletion.manifest.clone(),
    })?;
    if json {
        output::json(&effect)?;
        return Ok(());
    }
    let DeletionEffect {
        repository,
        manifest,
        blobs,
        bytes,
        shared_segment_bytes,
    } = &effect;
    let what = match manifest {
        None => format!("repository {repository}"),
        Some(manifest) => format!("{repository}@{manifest} and its tags"),
    };
    let size = format_about(*bytes);
    output::result(&format!("deleting {what} frees {blobs} blobs, {size}"))?;
    output::result("they are removed once their grace is over")?;
    if *shared_segment_bytes > 0 {
        let size = format_about(*shared_segment_bytes);
        output::result(&format!(
            "{size} of that is in segments with other blobs, and comes back at compaction"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a deletion is a repository, or one of its manifests by tag or digest; ports and schemes are none of it.
    #[test]
    fn a_deletion_names_a_repository_or_a_manifest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let parse = |text: &str| text.parse::<Deletion>();
        assert!(parse("team/app").unwrap().manifest.is_none());
        let tagged = parse("team/app:v1").unwrap();
        assert_eq!(tagged.repository.as_str(), "team/app");
        assert!(matches!(tagged.manifest, Some(ManifestReference::Tag(tag)) if tag == "v1"));
        let named = parse(&format!("team/app@{digest}")).unwrap();
        assert!(
            matches!(named.manifest, Some(ManifestReference::Digest(found)) if found == digest)
        );
        for wrong in [
            "",
            ":v1",
            "app:",
            "app@v1",
            "http://host/app",
            "app:v1@x",
            "a:b:c",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
