//! The one binary: the registry, and everything that looks into its store.
//!
//! Owns: turning arguments into a command and its end into an exit code.
//! Refuses: any work of its own; `commands` does it.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod exit;
mod failure;
mod inspect;
mod logging;
mod offline;
mod online;
mod output;
mod serve;
mod smoke;
mod target;
mod units;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Usage mistakes print themselves and end with the code of the table's "usage" row.
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
