//! Reads options from the values that flags, variables and the file give.
//!
//! Owns: [`Reader`], which `options` calls once for each option, and [`OptionInfo`], which describes the option
//! afterwards.
//!
//! Invariant: neither an [`OptionInfo`] nor an error contains the value of a secret.

use crate::config::error::{ConfigError, Source};
use crate::config::kind::{Form, Kind};

/// The text that replaces a secret.
const MASK: &str = "********";

/// A value of an option from one source.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// Key of the option.
    pub(crate) key: &'static str,
    /// Where the value is written.
    pub(crate) source: Source,
    /// The value. The entries of a list are separated by commas.
    pub(crate) text: String,
}

/// An option: its names, its help, its value and the source of that.
#[derive(Debug)]
pub(crate) struct OptionInfo {
    /// Key in the file; a dot separates the table from the key in it.
    pub(crate) key: &'static str,
    /// One line of help.
    pub(crate) help: &'static str,
    /// The syntax of values.
    pub(crate) form: Form,
    /// Minimum and maximum, if there are any.
    pub(crate) range: Option<[String; 2]>,
    /// The default, as it could be typed.
    pub(crate) default: String,
    /// The value, as it could be typed.
    pub(crate) value: String,
    /// Where the value came from.
    pub(crate) source: Source,
}

impl OptionInfo {
    /// Returns the name of its environment variable, such as `TONNAGE_STORAGE_SPILL_THRESHOLD`.
    pub(crate) fn variable(&self) -> String {
        let key = self.key.replace('.', "_");
        format!("TONNAGE_{}", key.to_ascii_uppercase())
    }

    /// Returns the name of its flag without the dashes, such as `storage-spill-threshold`. The mode and the
    /// switch of a table have the name of the table.
    pub(crate) fn flag(&self) -> String {
        let mode = self.key.strip_suffix(".mode");
        if let Some(table) = mode.or_else(|| self.key.strip_suffix(".enabled")) {
            return table.to_owned();
        }
        self.key.replace(['.', '_'], "-")
    }
}

/// Reads options and collects their descriptions and errors.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The values from all sources. Of two values for an option the later one applies.
    pub(crate) given: Vec<Given>,
    /// Every option that was read, in order.
    pub(crate) options: Vec<OptionInfo>,
    /// All errors.
    pub(crate) errors: Vec<ConfigError>,
}

impl Reader {
    /// Reads the option `key` into `value`, which holds its default.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        value: &mut T,
        kind: Kind<T>,
        help: &'static str,
    ) {
        let show = |value: &T| {
            let secret = kind.is_secret.then(|| MASK.to_owned());
            secret.unwrap_or_else(|| (kind.show)(value))
        };
        let default = show(value);
        let mut source = Source::Default;
        for given in self.given.iter().filter(|given| given.key == key) {
            match (kind.parse)(&given.text) {
                Ok(parsed) => (*value, source) = (parsed, given.source.clone()),
                Err(why) => {
                    let why = if kind.is_secret {
                        "invalid value"
                    } else {
                        &why
                    };
                    let what = format!("{key}: {why}");
                    self.errors.push(ConfigError::new(&given.source, what));
                }
            }
        }
        self.options.push(OptionInfo {
            key,
            help,
            default,
            value: show(value),
            form: kind.form,
            range: kind.range,
            source,
        });
    }

    /// Reports an error in the value of an option, at the source of the value.
    pub(crate) fn reject(&mut self, key: &str, what: &str) {
        let option = self.options.iter().find(|option| option.key == key);
        let source = option.map_or(Source::Default, |option| option.source.clone());
        self.errors
            .push(ConfigError::new(&source, format!("{key}: {what}")));
    }

    /// Returns whether the option is set.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.given.iter().any(|given| given.key == key)
    }
}
