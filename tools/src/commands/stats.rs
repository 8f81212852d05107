//! `tonnage stats`: what a store holds, asked of the server that has it open or counted in the closed store.
//!
//! Owns: the text form, and who is asked. Refuses: reading payloads; `fsck` does.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tonnage_engine::io::Env;
use tonnage_engine::{ClosedStore, Result, StoreStats};
use tonnage_server::{STATS_PATH, Stats as Numbers, StatsAnswer};

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline;
use crate::online::Socket;
use crate::output;
use crate::units::format_about;

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Ask the server with this socket [default: the one in the data directory]
    #[arg(long, value_name = "PATH")]
    server: Option<String>,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Debug, Serialize)]
struct Counted {
    /// The store, or the socket that was named instead.
    data: PathBuf,
    /// Whether a server has it open.
    open: bool,
    #[serde(flatten)]
    numbers: Numbers,
}

/// Counts what the store holds.
pub(crate) fn run(arguments: &Stats) -> std::result::Result<Exit, Failure> {
    let loaded = config::load(&arguments.flags).without_mistakes()?;
    let data = loaded.config.data()?;
    let socket = Socket::find(arguments.server.as_deref(), &data)?;
    let named = arguments.server.as_ref().map(PathBuf::from);
    let counted = offline::run(async |env| match socket.get(STATS_PATH).await? {
        Some(StatsAnswer { stats, .. }) => Ok((true, stats)),
        None => match count(env, &data).await {
            Ok(stats) => Ok((false, stats.into())),
            Err(error) => Err(Failure::of_store(&error, &data)),
        },
    })?;
    let (open, numbers) = counted?;
    let counted = Counted {
        data: named.unwrap_or(data),
        open,
        numbers,
    };
    if arguments.json {
        output::json(&counted)?;
    } else {
        print(&counted)?;
    }
    Ok(Exit::Done)
}

fn print(counted: &Counted) -> std::result::Result<(), Failure> {
    let Counted {
        data,
        open,
        numbers,
    } = counted;
    let state = match (open, numbers.poisoned) {
        (false, _) => "closed",
        (true, false) => "open, a server runs",
        (true, true) => "open, but it takes no writes since a failure; the server's log says which",
    };
    let stored = format_about(numbers.blob_bytes);
    let free = format_about(numbers.disk_available_bytes);
    let total = format_about(numbers.disk_total_bytes);
    for (name, value) in [
        ("store", data.display().to_string()),
        ("state", state.to_owned()),
        ("repositories", numbers.repositories.to_string()),
        ("blobs", format!("{}, {stored}", numbers.blobs)),
        ("uploads", format!("{} unfinished", numbers.uploads)),
        ("segments", numbers.segments.to_string()),
        ("disk", format!("{free} of {total} free")),
        ("last LSN", numbers.lsn.to_string()),
    ] {
        output::result(&format!("{name:<12}  {value}"))?;
    }
    Ok(())
}

async fn count(env: Env, data: &Path) -> Result<StoreStats> {
    ClosedStore::read(env, data).await?.stats().await
}
