//! The runtimes of commands, and how work runs on them.
//!
//! Owns: [`command_runtime`], [`block_on`], [`env_with`], and [`EngineRuntime`] for commands that may open a store.
//! Refuses: the store itself, which the engine opens for reading ([`tonnage_engine::ClosedStore`]) or for changes.

use std::pin::Pin;

use tonnage_engine::io::uring::Unavailable;
use tonnage_engine::io::{Backend, Env, NotStarted};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::threads;

/// Starts a runtime for tasks. One thread is enough, so the current one is used.
pub(crate) fn command_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| {
        Failure::new(
            Exit::Disk,
            format!("the runtime could not be started: {error}"),
        )
    })
}

/// Runs `work` to its end. Boxed, because tokio would be compiled with it, and with all that it calls, once for each
/// kind of runtime.
pub(crate) fn block_on<W: Future>(runtime: &tokio::runtime::Runtime, work: W) -> W::Output {
    let work: Pin<Box<dyn Future<Output = W::Output> + '_>> = Box::pin(work);
    runtime.block_on(work)
}

/// Creates the environment of the engine with the configured I/O backend. Also returns why `io_uring` does not run
/// although it might.
pub(crate) fn env_with(io: &str) -> Result<(Env, Option<Unavailable>), Failure> {
    let backend = match io {
        "threads" => Backend::Threads,
        "io_uring" => Backend::IoUring,
        _ => Backend::Auto,
    };
    tonnage_server::runtime::env_with(backend).map_err(|error| match error {
        NotStarted::Threads(_) => threads::of_threads(error.to_string()),
        NotStarted::IoUring(unavailable) => Failure::new(Exit::Disk, unavailable.to_string())
            .hint(unavailable.hint())
            .hint("or read and write by threads where io_uring does not work: --io auto"),
    })
}

/// A runtime for commands, with the environment of the engine.
#[derive(Debug)]
pub(crate) struct EngineRuntime {
    // Dropped before the runtime, which runs its tasks.
    env: Env,
    runtime: tokio::runtime::Runtime,
}

impl EngineRuntime {
    /// Starts the runtime with the configured I/O backend.
    pub(crate) fn start(io: &str) -> Result<Self, Failure> {
        let runtime = command_runtime()?;
        let entered = runtime.enter();
        let (env, _) = env_with(io)?;
        drop(entered);
        Ok(Self { env, runtime })
    }

    /// Returns the environment for the engine.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Runs `work` to its end.
    pub(crate) fn block_on<W: Future>(&self, work: W) -> W::Output {
        block_on(&self.runtime, work)
    }
}
