//! `tonnage whence`: prints where the content of a digest comes from.
//!
//! Owns: the text and JSON forms. Refuses: the meaning of claims, which are printed as they are.

use std::collections::BTreeMap;

use serde::Serialize;
use tonnage_server::admin::{ContentOrigin, ManifestOrigin, PushRecord, Whence as Request};
use tonnage_server::oci::Digest;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::target::{Target, TargetArguments};
use crate::units::format_time;

/// Arguments of `whence`.
#[derive(Debug, clap::Args)]
pub(crate) struct Whence {
    /// The whole digest of a manifest, a config or a layer
    #[arg(value_parser = whole_digest)]
    digest: Digest,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// The result.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    digest: &'a str,
    stored: bool,
    manifests: Vec<Manifest<'a>>,
    more_manifests: bool,
    repositories: &'a [String],
    more_repositories: bool,
}

/// A manifest in a result.
#[derive(Debug, Serialize)]
struct Manifest<'a> {
    repository: &'a str,
    digest: &'a str,
    tags: &'a [String],
    more_tags: bool,
    pushed: Option<Push<'a>>,
}

/// A push in a result.
#[derive(Debug, Serialize)]
struct Push<'a> {
    /// Empty for an anonymous one.
    by: &'a str,
    /// RFC 3339 UTC.
    at: String,
    request: &'a str,
    build: Option<Build<'a>>,
}

/// The provenance of a push in a result.
#[derive(Debug, Serialize)]
struct Build<'a> {
    issuer: &'a str,
    subject: &'a str,
    claims: &'a BTreeMap<String, String>,
    incomplete: bool,
}

fn whole_digest(text: &str) -> Result<Digest, String> {
    let parsed = text.parse::<Digest>();
    parsed.map_err(|error| format!("{error}; write the whole digest"))
}

/// Prints the manifests that have the digest, each with its push.
pub(crate) fn run(arguments: &Whence) -> Result<Exit, Failure> {
    let mut target = Target::find(&arguments.target)?;
    let digest = arguments.digest.to_string();
    let found = target.ask(Request { digest })?;
    if !found.stored && found.manifests.is_empty() && found.repositories.is_empty() {
        let digest = &found.digest;
        let what = format!("the store has no manifest or blob {digest}, and no manifest lists it");
        return Err(Failure::new(Exit::NotFound, what));
    }
    let answer = Answer::from(&found);
    if arguments.json {
        output::json(&answer)?;
    } else {
        print(&answer)?;
    }
    Ok(Exit::Done)
}

impl<'a> From<&'a ContentOrigin> for Answer<'a> {
    fn from(found: &'a ContentOrigin) -> Self {
        Self {
            digest: &found.digest,
            stored: found.stored,
            manifests: found.manifests.iter().map(Manifest::from).collect(),
            more_manifests: found.more_manifests,
            repositories: &found.repositories,
            more_repositories: found.more_repositories,
        }
    }
}

impl<'a> From<&'a ManifestOrigin> for Manifest<'a> {
    fn from(found: &'a ManifestOrigin) -> Self {
        Self {
            repository: &found.repository,
            digest: &found.digest,
            tags: &found.tags,
            more_tags: found.more_tags,
            pushed: found.pushed.as_ref().map(Push::from),
        }
    }
}

impl<'a> From<&'a PushRecord> for Push<'a> {
    fn from(push: &'a PushRecord) -> Self {
        let build = push.provenance.as_ref().map(|provenance| Build {
            issuer: provenance.issuer(),
            subject: provenance.subject(),
            claims: provenance.claims(),
            incomplete: provenance.is_incomplete(),
        });
        Self {
            by: &push.by,
            at: format_time(push.unix_s.saturating_mul(1000)),
            request: &push.request,
            build,
        }
    }
}

fn print(answer: &Answer<'_>) -> Result<(), Failure> {
    if answer.manifests.is_empty() {
        let repositories = match answer.repositories {
            [] => "no repository".to_owned(),
            names => names.join(", "),
        };
        let digest = answer.digest;
        let more = if answer.more_repositories {
            ", and more"
        } else {
            ""
        };
        output::result(&format!(
            "no manifest lists {digest}; it is a blob of {repositories}{more}"
        ))?;
        return Ok(());
    }
    for manifest in &answer.manifests {
        print_manifest(manifest)?;
    }
    if answer.more_manifests {
        output::result("and more manifests")?;
    }
    Ok(())
}

fn print_manifest(manifest: &Manifest<'_>) -> Result<(), Failure> {
    output::result(&format!("{}@{}", manifest.repository, manifest.digest))?;
    let more = if manifest.more_tags { ", ..." } else { "" };
    let tags = match manifest.tags {
        [] => "none".to_owned(),
        tags => tags.join(", "),
    };
    output::result(&format!("  tags: {tags}{more}"))?;
    let Some(push) = &manifest.pushed else {
        output::result("  pushed: not recorded")?;
        return Ok(());
    };
    let by = match push.by {
        "" => "anonymous",
        by => by,
    };
    output::result(&format!("  pushed: {} by {}", push.at, by.escape_debug()))?;
    output::result(&format!("  request: {}", push.request.escape_debug()))?;
    let Some(build) = &push.build else {
        return Ok(());
    };
    // Issuers choose these texts, and a control character could change what a terminal shows.
    let pairs = [("issuer", build.issuer), ("subject", build.subject)];
    for (name, value) in pairs {
        output::result(&format!("  {name}: {}", value.escape_debug()))?;
    }
    for (name, value) in build.claims {
        let (name, value) = (name.escape_debug(), value.escape_debug());
        output::result(&format!("    {name}: {value}"))?;
    }
    if build.incomplete {
        output::result("    and more, which was not kept")?;
    }
    Ok(())
}
