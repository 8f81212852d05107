//! The runtimes of commands other than `serve`.
//!
//! Owns: [`command_runtime`], and [`EngineRuntime`] for commands that may open a store. Refuses: the store itself,
//! which the engine opens for reading ([`tonnage_engine::ClosedStore`]) or for changes.

use tonnage_engine::io::Env;

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

/// A runtime for commands, with the environment of the engine.
#[derive(Debug)]
pub(crate) struct EngineRuntime {
    // Dropped before the runtime, which runs its tasks.
    env: Env,
    runtime: tokio::runtime::Runtime,
}

impl EngineRuntime {
    /// Starts the runtime.
    pub(crate) fn start() -> Result<Self, Failure> {
        let runtime = command_runtime()?;
        let entered = runtime.enter();
        let env = tonnage_server::runtime::env().map_err(|error| {
            threads::of_threads(format!("threads could not be started: {error}"))
        })?;
        drop(entered);
        Ok(Self { env, runtime })
    }

    /// Returns the environment for the engine.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Runs `work` to its end.
    pub(crate) fn block_on<W: Future>(&self, work: W) -> W::Output {
        self.runtime.block_on(work)
    }
}
