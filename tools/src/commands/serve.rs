//! `tonnage serve`: runs the registry.
//!
//! Owns: the way from arguments to a runtime with logging.
//! Refuses: the server's life; `crate::serve` has it.

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::config::settings;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging;
use crate::serve::{self, ServeOptions, threads};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Serves until a signal comes.
pub(crate) fn run(arguments: &Serve) -> Result<Exit, Failure> {
    let resolved = config::load(&arguments.flags).without_mistakes()?;
    let json = resolved.word("log.format") == "json";
    logging::start(resolved.word("log.level"), json)?;
    let options = ServeOptions {
        data: settings::data(&resolved)?,
        store: settings::store_options(&resolved),
        server: settings::server_options(&resolved),
        connections_given: resolved.is_given("limits.connections"),
        open_files_given: resolved.is_given("storage.open_files"),
        io: resolved.word("io"),
        json,
    };
    let workers = resolved.count("worker_threads");
    threads::check(workers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("tonnage-worker")
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::Disk, format!("no runtime could be started: {error}"))
        })?;
    runtime.block_on(serve::serve(options))
}
