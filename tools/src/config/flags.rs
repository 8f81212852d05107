//! The flags of all options.
//!
//! Owns: [`ConfigFlags`], which any command can flatten into its arguments. Values stay text here, so that the errors
//! of all sources are reported together.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::config::error::Source;
use crate::config::kind::Form;
use crate::config::options;
use crate::config::reader::{Given, OptionInfo};

/// The options given on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigFlags {
    /// `--config`.
    pub(super) file: Option<PathBuf>,
    /// Values of options.
    pub(super) given: Vec<Given>,
}

/// Options that `-h` shows; `--help` shows all.
const COMMON: [&str; 12] = [
    "data",
    "listen",
    "admin_listen",
    "hostnames",
    "tls.mode",
    "tls.cert",
    "tls.key",
    "tls.acme",
    "auth.enabled",
    "auth.rules",
    "log.level",
    "insecure_anonymous",
];

impl Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help_heading(heading("config"))
            .help("TOML file with options [variable: TONNAGE_CONFIG] [default: no file]");
        command.arg(file).args(options::all().iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(option: &OptionInfo) -> Arg {
    let range = option.range.as_ref();
    let range = range.map_or(String::new(), |[min, max]| format!(" [{min} to {max}]"));
    let (help, variable, default) = (option.help, option.variable(), &option.default);
    let flag = Arg::new(option.key)
        .long(option.flag())
        .value_name(placeholder(option.form))
        .action(ArgAction::Set)
        .help(format!(
            "{help} [variable: {variable}] [default: {default}]{range}"
        ))
        .help_heading(heading(option.key))
        .visible_aliases(alias(option.key))
        .hide_short_help(!COMMON.contains(&option.key));
    if option.form == Form::Switch {
        return flag
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    flag
}

/// Returns another, shorter name of a flag.
fn alias(key: &str) -> Option<&'static str> {
    match key {
        "hostnames" => Some("hostname"),
        "tls.acme" => Some("acme"),
        _ => None,
    }
}

/// Returns the heading in the help above the options of a table of the file.
fn heading(key: &str) -> &'static str {
    match key.split_once('.') {
        Some(("tls", _)) => "TLS",
        Some(("auth", _)) => "Access control",
        Some(("log", _)) => "Log",
        Some(("limits", _)) => "Limits",
        Some(("timeouts", _)) => "Timeouts",
        Some(("http2", _)) => "HTTP/2",
        Some(("storage", _)) => "Storage",
        Some(("collection" | "compaction", _)) => "Collection and compaction",
        Some(("scrub", _)) => "Scrub",
        Some(_) | None => "General",
    }
}

fn placeholder(form: Form) -> &'static str {
    match form {
        Form::Path => "DIR",
        Form::File => "FILE",
        Form::Address => "ADDR",
        Form::Word => "WORD",
        Form::Switch => "BOOL",
        Form::Number => "N",
        Form::Size => "SIZE",
        Form::Duration => "TIME",
        Form::List => "LIST",
    }
}

impl FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = options::all().into_iter().filter_map(|option| {
            let text = matches.get_one::<String>(option.key)?.clone();
            let (key, name) = (option.key, option.flag());
            let source = Source::Flag { name };
            Some(Given { key, source, text })
        });
        Ok(Self {
            file: matches.get_one::<PathBuf>("config").cloned(),
            given: given.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
