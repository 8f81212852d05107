//! Tests of the engine through its public interface, one module for each subject.

mod checkpoints;
mod commits;
mod directory;
mod fixtures;
mod seam;
mod short;

/// Runs a test on its own runtime, in a fresh directory.
fn run<F: Future<Output = ()>>(test: impl FnOnce(tempfile::TempDir) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(tempfile::TempDir::new().unwrap()));
}
