//! What commands on a closed store run in: a small runtime and the engine's environment.
//!
//! Owns: [`run()`]. Refuses: the store itself, which the engine reads ([`tonnage_engine::ClosedStore`]) or opens.

use tonnage_engine::io::Env;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::threads;

/// Runs `work` on a runtime of its own, with the real environment.
pub(crate) fn run<T, W: Future<Output = T>>(work: impl FnOnce(Env) -> W) -> Result<T, Failure> {
    // One thread for tasks is enough, and this one is there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Disk, format!("no runtime could be started: {error}"))
    })?;
    runtime.block_on(async {
        let env = tonnage_server::runtime::env().map_err(|error| {
            threads::of_threads(format!("threads could not be started: {error}"))
        })?;
        Ok(work(env).await)
    })
}
