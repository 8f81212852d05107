//! A runtime for commands that work on a closed store.
//!
//! Owns: [`EngineRuntime`]. Refuses: the store itself, which the engine opens for reading
//! ([`tonnage_engine::ClosedStore`]) or for changes.

use tonnage_engine::io::Env;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::threads;

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
        // One thread for tasks is enough, so the current one is used.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| {
            Failure::new(
                Exit::Disk,
                format!("the runtime could not be started: {error}"),
            )
        })?;
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
