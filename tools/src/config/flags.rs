//! The flags of all options, made from the table.
//!
//! Owns: [`ConfigFlags`], which any command can flatten into its arguments.
//! Refuses: understanding values; they stay text until `resolve`, where all mistakes are reported together.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::config::options::{OPTIONS, OptionSpec};

/// What was given on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigFlags {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// Options given as flags, with their text.
    pub(crate) given: Vec<(&'static OptionSpec, String)>,
}

/// Flags shown by `-h`; the others are shown by `--help` only.
const COMMON: [&str; 5] = [
    "data",
    "listen",
    "admin_listen",
    "log.level",
    "insecure_anonymous",
];

impl Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("TOML file with options [variable: TONNAGE_CONFIG] [default: no file]");
        OPTIONS.iter().fold(command.arg(file), |command, option| {
            command.arg(flag_of(option))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag_of(option: &'static OptionSpec) -> Arg {
    let help = format!(
        "{} [variable: {}] [default: {}]",
        option.help,
        option.variable(),
        option.default
    );
    let flag = Arg::new(option.key)
        .long(option.flag())
        .value_name(option.kind.placeholder())
        .action(ArgAction::Set)
        .help(help)
        .hide_short_help(!COMMON.contains(&option.key));
    if matches!(option.kind, crate::config::value::Kind::Switch) {
        return flag
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    flag
}

impl FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        self.given = OPTIONS
            .iter()
            .filter_map(|option| {
                matches
                    .get_one::<String>(option.key)
                    .map(|text| (option, text.clone()))
            })
            .collect();
        Ok(())
    }
}
