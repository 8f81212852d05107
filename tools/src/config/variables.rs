//! The `TONNAGE_*` environment variables.
//!
//! Owns: which variables are options, which are ignored, and which cause a warning.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::error::{ConfigError, Source, nearest};
use crate::config::reader::{Given, OptionInfo, Reader};

/// The variable that names the file, like `--config`.
const FILE: &str = "TONNAGE_CONFIG";
/// Prefixes of variables that Kubernetes sets for a service named `tonnage`, and of switches of the tests; and the
/// password that `repair` reads.
const IGNORED: [&str; 4] = [
    "TONNAGE_PORT",
    "TONNAGE_SERVICE_",
    "TONNAGE_TEST_",
    "TONNAGE_REPAIR_PASSWORD",
];

/// Passes the values of options to `reader`. Returns the named file, and a warning for each unknown variable.
pub(super) fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
    known: &[OptionInfo],
    reader: &mut Reader,
) -> (Option<PathBuf>, Vec<ConfigError>) {
    let (mut file, mut warnings) = (None, Vec::new());
    for (name, value) in variables {
        // Names of options are ASCII, so a name that is not UTF-8 is not an option.
        let name = name.into_string().unwrap_or_default();
        let is_ignored = IGNORED.iter().any(|prefix| name.starts_with(prefix));
        if name == FILE {
            file = Some(PathBuf::from(value));
        } else if name.starts_with("TONNAGE_") && !is_ignored {
            let option = known.iter().find(|option| option.variable() == name);
            let source = Source::Variable { name };
            match (option, value.into_string()) {
                (Some(OptionInfo { key, .. }), Ok(text)) => {
                    reader.given.push(Given { key, source, text });
                }
                (Some(_), Err(_)) => reader
                    .errors
                    .push(ConfigError::new(&source, "the value is not UTF-8")),
                (None, _) => warnings.push(ConfigError::new(&source, unknown(&source, known))),
            }
        }
    }
    (file, warnings)
}

fn unknown(variable: &Source, known: &[OptionInfo]) -> String {
    let names: Vec<_> = known.iter().map(OptionInfo::variable).collect();
    match nearest(&variable.to_string(), names.iter().map(String::as_str)) {
        Some(meant) => format!("unknown variable, ignored; did you mean {meant}?"),
        None => "unknown variable, ignored; `tonnage config show` lists all options".to_owned(),
    }
}
