//! Configuration: flags, variables and the file, read into the options of the server and the store.
//!
//! Owns: the order of the sources (a flag, then a variable, then the file, then the default) and [`Loaded`]. To add an
//! option, add it to `options`: its flag, variable, key, help and place in `config show` follow from there.
//!
//! Invariant: one run reports every error, also in a value that another source overrides.

mod check;
pub(crate) mod error;
mod file;
pub(crate) mod flags;
pub(crate) mod kind;
pub(crate) mod options;
pub(crate) mod reader;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod untagged;
mod variables;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use self::error::ConfigError;
use self::file::ConfigFile;
use self::flags::ConfigFlags;
use self::options::Config;
use self::reader::{OptionInfo, Reader};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// A configuration with the source of each value, and its errors.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The options, each as set by its last source without an error.
    pub(crate) config: Config,
    /// The options for `config show`, in the order of their declaration.
    pub(crate) options: Vec<OptionInfo>,
    /// All errors. If there are any, the configuration must not be used.
    pub(crate) errors: Vec<ConfigError>,
    /// Settings that are probably errors but have no effect.
    pub(crate) warnings: Vec<ConfigError>,
    /// The file, if one was named.
    pub(crate) file: Option<PathBuf>,
}

impl Loaded {
    /// Prints the warnings. Fails with all errors if there are any.
    pub(crate) fn into_valid(self) -> Result<Self, Failure> {
        for warning in &self.warnings {
            output::note(&format!("warning: {warning}"));
        }
        if self.errors.is_empty() {
            return Ok(self);
        }
        let failure = Failure::new(
            Exit::Usage,
            "the configuration has errors; nothing was done",
        );
        Err(self
            .errors
            .iter()
            .fold(failure, |failure, error| failure.hint(error.to_string())))
    }
}

/// Reads the flags, the environment of this process, and the file that they name.
pub(crate) fn load(flags: &ConfigFlags) -> Loaded {
    load_from(flags, std::env::vars_os(), ConfigFile::open)
}

fn load_from(
    flags: &ConfigFlags,
    variables: impl Iterator<Item = (OsString, OsString)>,
    open: impl FnOnce(&Path) -> Result<ConfigFile, ConfigError>,
) -> Loaded {
    let known = options::all();
    let mut reader = Reader::default();
    let (named, warnings) = variables::read(variables, &known, &mut reader);
    let path = flags.file.clone().or(named);
    // A later source overrides an earlier one: the file comes before the variables, the flags after them.
    let variables = std::mem::take(&mut reader.given);
    match path.as_deref().map(open) {
        Some(Ok(file)) => file.read(&known, &mut reader),
        Some(Err(error)) => reader.errors.push(error),
        None => {}
    }
    reader.given.extend(variables);
    reader.given.extend_from_slice(&flags.given);
    let config = Config::read(&mut reader);
    check::check(&config, &mut reader);
    reader.errors.sort_by(|a, b| a.at.cmp(&b.at));
    Loaded {
        config,
        options: reader.options,
        errors: reader.errors,
        warnings,
        file: path,
    }
}
