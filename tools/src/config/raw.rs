//! What was typed: every value from the file, the environment and the flags, not yet understood.
//!
//! Owns: [`Raw`] and the rules about names of variables.
//! Refuses: deciding which of several values counts; `resolve` does.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::diagnose::{Mistake, nearest};
use crate::config::file;
use crate::config::flags::ConfigFlags;
use crate::config::options::{OPTIONS, OptionSpec};
use crate::config::source::Source;
use crate::config::value::Typed;

/// Names the file, as `--config` does.
const FILE_VARIABLE: &str = "TONNAGE_CONFIG";
/// Injected by Kubernetes for a service named `tonnage`, or switches of our tests: none of our business.
const NOT_OPTIONS: [&str; 3] = ["TONNAGE_PORT", "TONNAGE_SERVICE_", "TONNAGE_TEST_"];

/// One value that somebody wrote for an option.
#[derive(Debug)]
pub(crate) struct Given {
    /// The option.
    pub(crate) option: &'static OptionSpec,
    /// What was written.
    pub(crate) typed: Typed,
    /// Where.
    pub(crate) source: Source,
}

/// Everything that was typed.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    /// Values, in no order.
    pub(crate) given: Vec<Given>,
    /// Mistakes of form.
    pub(crate) mistakes: Vec<Mistake>,
    /// What looks wrong but changes nothing.
    pub(crate) warnings: Vec<Mistake>,
    /// The file, if one was named.
    pub(crate) file: Option<PathBuf>,
}

/// Reads flags, variables, and the file that one of them names.
pub(crate) fn read(
    flags: &ConfigFlags,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Raw {
    let mut raw = Raw::default();
    for (name, value) in variables {
        // Names of ours are ASCII; a name that is not UTF-8 is not ours.
        if let Ok(name) = name.into_string()
            && name.starts_with("TONNAGE_")
        {
            read_variable(name, value, &mut raw);
        }
    }
    for (option, text) in &flags.given {
        let source = Source::Flag {
            name: option.flag(),
        };
        raw.given.push(Given {
            option,
            typed: Typed::Text(text.clone()),
            source,
        });
    }
    if let Some(path) = &flags.file {
        raw.file = Some(path.clone());
    }
    if let Some(path) = raw.file.clone() {
        file::read(&path, &mut raw);
    }
    raw
}

fn read_variable(name: String, value: OsString, raw: &mut Raw) {
    if name == FILE_VARIABLE {
        raw.file = Some(PathBuf::from(value));
        return;
    }
    if NOT_OPTIONS.iter().any(|prefix| name.starts_with(prefix)) {
        return;
    }
    let Some(option) = OPTIONS.iter().find(|option| option.variable() == name) else {
        let known: Vec<String> = OPTIONS.iter().map(OptionSpec::variable).collect();
        let what = match nearest(&name, known.iter().map(String::as_str)) {
            Some(known) => format!("this variable sets nothing; the nearest that does is {known}"),
            None => {
                "this variable sets nothing; `tonnage config show` lists those that do".to_owned()
            }
        };
        raw.warnings
            .push(Mistake::new(Source::Variable { name }, what));
        return;
    };
    let source = Source::Variable { name };
    match value.into_string() {
        Ok(text) => raw.given.push(Given {
            option,
            typed: Typed::Text(text),
            source,
        }),
        Err(_) => raw
            .mistakes
            .push(Mistake::new(source, "the value is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Raw {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        read(
            &ConfigFlags::default(),
            pairs.collect::<Vec<_>>().into_iter(),
        )
    }

    /// Guards: a misspelt variable warns with the nearest; what Kubernetes injects does not.
    #[test]
    fn unknown_variables_warn_and_injected_ones_do_not() {
        let raw = variables(&[
            ("TONNAGE_LISTNE", "x"),
            ("TONNAGE_PORT", "tcp://10.0.0.1:5000"),
            ("TONNAGE_PORT_5000_TCP_ADDR", "10.0.0.1"),
            ("TONNAGE_SERVICE_HOST", "10.0.0.1"),
            ("TONNAGE_TEST_FULL", "1"),
            ("PATH", "/bin"),
        ]);
        assert!(raw.given.is_empty() && raw.mistakes.is_empty());
        let warnings: Vec<_> = raw.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].starts_with("TONNAGE_LISTNE:") && warnings[0].contains("TONNAGE_LISTEN")
        );
    }

    /// Guards: every option has its variable.
    #[test]
    fn every_option_can_be_set_by_its_variable() {
        for option in OPTIONS {
            let raw = variables(&[(&option.variable(), option.default)]);
            assert_eq!(raw.given.len(), 1, "{}", option.key);
        }
    }
}
