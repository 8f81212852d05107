//! One file for each command.
//!
//! Owns: which function carries out which command.
//! Refuses: work that two commands share; it belongs beside them, not here.

pub(crate) mod check_config;
pub(crate) mod config_show;
pub(crate) mod inspect;
pub(crate) mod smoke;

use crate::cli::{Cli, Command, ConfigCommand};
use crate::exit::Exit;
use crate::failure::Failure;

/// Carries out a command.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Smoke(arguments) => smoke::run(&arguments),
        Command::Config(ConfigCommand::Show(arguments)) => config_show::run(&arguments),
    }
}
