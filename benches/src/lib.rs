//! The servers, the clients and the setup that the benchmarks share.

use std::future::Future;
use std::process::ExitCode;

use tonnage_engine::{Algorithm, Digest};

pub mod images;
pub mod process;
pub mod store;
pub mod tonnage;
pub mod wire;

/// Runs a benchmark on a runtime of two workers. An error goes to stderr under the benchmark's name.
pub fn run(name: &str, benchmark: impl Future<Output = Result<(), String>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(|e| format!("start a runtime: {e}"))
        .and_then(|runtime| runtime.block_on(benchmark));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the SHA-256 of `bytes`, as registries write it.
pub fn digest_of(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}
