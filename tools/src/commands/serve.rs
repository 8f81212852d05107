//! `tonnage serve`: runs the registry.
//!
//! Owns: starting a runtime and logging from arguments.
//! Refuses: running the server, which `crate::serve` does.

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging;
use crate::runtime::block_on;
use crate::serve::{self, GuardOptions, ServeOptions, threads};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Serves until a signal arrives.
pub(crate) fn run(arguments: &Serve) -> Result<Exit, Failure> {
    let mut config = config::load(&arguments.flags).into_valid()?.config;
    config.tls.add_hostnames(&mut config.server);
    let json = config.log_format == "json";
    let data = config.data()?;
    let options = ServeOptions {
        guard: GuardOptions {
            tls: config.tls.source(&data, &config.server),
            tls_options: config.tls.options(),
            auth: config.auth,
        },
        data,
        store: config.store,
        server: config.server,
        connections_set: config.connections_set,
        open_files_set: config.open_files_set,
        io: config.io,
        json,
    };
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = config.worker_threads.unwrap_or_else(cores);
    threads::check(workers, options.guard.threads())?;
    logging::start(config.log_level, json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("tonnage-worker")
        .on_thread_start(tonnage_engine::io::shorten_time_slice)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Exit::Disk,
                format!("the runtime could not be started: {error}"),
            )
        })?;
    let ended = block_on(&runtime, serve::serve(options));
    logging::flush();
    ended
}
