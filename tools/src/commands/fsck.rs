//! `tonnage fsck`: checks a closed store completely.
//!
//! Owns: the report's two forms and the progress. Refuses: repairing, and grading findings, which the engine does.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use tonnage_engine::fsck::{self, FsckOptions, FsckReport, Severity};

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::runtime::EngineRuntime;
use crate::units::format_about;

/// Arguments of `fsck`.
#[derive(Debug, clap::Args)]
pub(crate) struct Fsck {
    /// Compute the digest of every blob too, not only its checksums
    #[arg(long)]
    deep: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Serialize)]
struct Report {
    /// No acknowledged content is lost and nothing contradicts itself.
    ok: bool,
    data: PathBuf,
    closed_cleanly: bool,
    lsn: u64,
    transactions: u64,
    repositories: u64,
    manifests: u64,
    tags: u64,
    blobs: u64,
    blob_bytes: u64,
    uploads: u64,
    findings: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    #[serde(serialize_with = "serialize_severity")]
    severity: Severity,
    path: PathBuf,
    what: String,
}

/// Checks the store.
pub(crate) fn run(arguments: &Fsck) -> Result<Exit, Failure> {
    let loaded = config::load(&arguments.flags).into_valid()?;
    let data = loaded.config.data()?;
    let options = FsckOptions {
        deep: arguments.deep,
    };
    let is_terminal = io::stderr().is_terminal();
    let progress = |done: u64, total: u64| {
        if is_terminal {
            let line = format!("\rchecked {} of {} MiB\x1b[K", done >> 20, total >> 20);
            io::stderr().write_all(line.as_bytes()).unwrap_or_default();
        }
    };
    let runtime = EngineRuntime::start(loaded.config.io)?;
    let checked = runtime.block_on(fsck::check(runtime.env(), &data, options, &progress));
    if is_terminal {
        io::stderr().write_all(b"\r\x1b[K").unwrap_or_default();
    }
    let checked = checked.map_err(|error| Failure::of_store(&error, &data))?;
    let report = report_of(checked, data);
    if arguments.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.ok {
        Exit::Done
    } else {
        Exit::Problems
    })
}

fn report_of(checked: FsckReport, data: PathBuf) -> Report {
    Report {
        ok: checked.is_sound(),
        data,
        closed_cleanly: checked.clean,
        lsn: checked.lsn.0,
        transactions: checked.transactions,
        repositories: checked.repositories,
        manifests: checked.manifests,
        tags: checked.tags,
        blobs: checked.blobs,
        blob_bytes: checked.blob_bytes,
        uploads: checked.uploads,
        findings: checked
            .findings
            .into_iter()
            .map(|finding| Found {
                severity: finding.severity,
                path: finding.path,
                what: finding.what,
            })
            .collect(),
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn serialize_severity<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(word_of(*severity))
}

fn word_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "damage",
        Severity::Cache => "cache",
        Severity::Leftover => "leftover",
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    for Found {
        severity,
        path,
        what,
    } in &report.findings
    {
        let severity = word_of(*severity);
        output::result(&format!("{severity}: {}: {what}", path.display()))?;
    }
    output::result(&format!(
        "{}: {} repositories, {} manifests, {} tags, {} blobs ({}), {} unfinished uploads, {} transactions",
        report.data.display(),
        report.repositories,
        report.manifests,
        report.tags,
        report.blobs,
        format_about(report.blob_bytes),
        report.uploads,
        report.transactions
    ))?;
    let is_damage = |found: &&Found| found.severity == Severity::Damage;
    let verdict = if !report.ok {
        let count = report.findings.iter().filter(is_damage).count();
        format!("DAMAGED: {count} finding(s) of damage; nothing was changed")
    } else if report.findings.is_empty() {
        "sound".to_owned()
    } else {
        "sound; the findings above affect no content".to_owned()
    };
    output::result(&verdict)?;
    Ok(())
}
