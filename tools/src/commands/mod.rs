//! One file for each command.
//!
//! Owns: the map from commands to functions.
//! Refuses: work that two commands share, which has its own modules.

pub(crate) mod can;
pub(crate) mod check_config;
pub(crate) mod collect;
pub(crate) mod config_show;
pub(crate) mod credential_provider;
pub(crate) mod fsck;
pub(crate) mod inspect;
pub(crate) mod jobs;
pub(crate) mod key;
pub(crate) mod repair;
pub(crate) mod repo_delete;
pub(crate) mod repo_list;
pub(crate) mod scrub;
pub(crate) mod serve;
pub(crate) mod smoke;
pub(crate) mod stats;
pub(crate) mod tag_delete;
pub(crate) mod tag_list;
pub(crate) mod usage;
pub(crate) mod user;
pub(crate) mod whence;

use crate::cli::{Cli, Command, ConfigCommand, RepoCommand, TagCommand};
use crate::exit::Exit;
use crate::failure::Failure;

/// Carries out a command.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Repo(RepoCommand::List(arguments)) => repo_list::run(&arguments),
        Command::Repo(RepoCommand::Delete(arguments)) => repo_delete::run(&arguments),
        Command::Tag(TagCommand::List(arguments)) => tag_list::run(&arguments),
        Command::Tag(TagCommand::Delete(arguments)) => tag_delete::run(&arguments),
        Command::User(command) => user::run(&command),
        Command::Key(command) => key::run(&command),
        Command::Can(arguments) => can::run(&arguments),
        Command::CredentialProvider(arguments) => credential_provider::run(&arguments),
        Command::Usage(arguments) => usage::run(&arguments),
        Command::Whence(arguments) => whence::run(&arguments),
        Command::Collect(arguments) => collect::run(&arguments),
        Command::Scrub(arguments) => scrub::run(&arguments),
        Command::Repair(arguments) => repair::run(&arguments),
        Command::Jobs(arguments) => jobs::run(&arguments),
        Command::Compact(arguments) => collect::compact(&arguments),
        Command::Fsck(arguments) => fsck::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Smoke(arguments) => smoke::run(&arguments),
        Command::Config(ConfigCommand::Show(arguments)) => config_show::run(&arguments),
    }
}
