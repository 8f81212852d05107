//! The `tonnage` binary: the registry, and all commands for its store.
//!
//! Owns: parsing arguments into a command, and mapping its result to an exit code.
//! Refuses: other work, which `commands` does.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod exit;
mod failure;
mod input;
mod inspect;
mod kubelet;
mod logging;
mod online;
mod output;
mod runtime;
mod serve;
mod smoke;
mod target;
mod units;
mod waiting;

use std::process::ExitCode;

fn main() -> ExitCode {
    // clap prints usage errors and exits with the code of [`Exit::Usage`].
    let cli = <cli::Cli as clap::Parser>::parse();
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.is_silent() {
                output::note(&failure.to_string());
            }
            failure.exit.into()
        }
    }
}
