//! `tonnage stats`: what a closed store holds.
//!
//! Owns: counting and the text form. Refuses: reading payloads; `fsck` does.

use std::path::PathBuf;

use serde::Serialize;
use tonnage_engine::Result;
use tonnage_engine::io::Env;

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::config::settings;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline;
use crate::output;
use crate::units::format_about;

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Debug, Serialize)]
struct Counted {
    data: PathBuf,
    lsn: u64,
    repositories: u64,
    blobs: u64,
    blob_bytes: u64,
    segments: u64,
    disk_total_bytes: u64,
    disk_available_bytes: u64,
}

/// Counts what the store holds.
pub(crate) fn run(arguments: &Stats) -> std::result::Result<Exit, Failure> {
    let resolved = config::load(&arguments.flags).without_mistakes()?;
    let data = settings::data(&resolved)?;
    let counted = offline::run(|env| count(env, data.clone()))?;
    let counted = counted.map_err(|error| Failure::of_store(&error, &data))?;
    if arguments.json {
        output::json(&counted)?;
        return Ok(Exit::Done);
    }
    let (stored, free) = (counted.blob_bytes, counted.disk_available_bytes);
    output::result(&format!("store         {}", data.display()))?;
    output::result(&format!("repositories  {}", counted.repositories))?;
    output::result(&format!(
        "blobs         {}, {}",
        counted.blobs,
        format_about(stored)
    ))?;
    output::result(&format!("segments      {}", counted.segments))?;
    let total = format_about(counted.disk_total_bytes);
    output::result(&format!(
        "disk          {} of {total} free",
        format_about(free)
    ))?;
    output::result(&format!("last LSN      {}", counted.lsn))?;
    Ok(Exit::Done)
}

async fn count(env: Env, data: PathBuf) -> Result<Counted> {
    let closed = offline::read(&env, &data).await?;
    let space = env.io.space(&data).await;
    let space =
        space.map_err(|source| tonnage_engine::Error::io("ask for the space on", &data, source))?;
    let mut counted = Counted {
        lsn: closed.view.lsn().0,
        repositories: closed.view.repository_count()?,
        blobs: 0,
        blob_bytes: 0,
        segments: 0,
        disk_total_bytes: space.total_bytes,
        disk_available_bytes: space.available_bytes,
        data,
    };
    for segment in closed.view.segments() {
        let (_, used) = segment?;
        counted.segments += u64::from(used.live_blobs > 0);
        counted.blobs += used.live_blobs;
        counted.blob_bytes += used.live_bytes;
    }
    Ok(counted)
}
