//! Reads one option after another from what flags, variables and the file give for it.
//!
//! Owns: [`Reader`], which `options` calls once for each option, and [`OptionInfo`], which describes the option afterwards.
//!
//! Invariant: neither an [`OptionInfo`] nor a mistake contains the value of a secret.

use crate::config::kind::{Form, Kind};
use crate::config::mistake::{Mistake, Source};

/// Shown in place of a secret.
const MASK: &str = "********";

/// A value for an option, as one source gives it.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// Key of the option.
    pub(crate) key: &'static str,
    /// Where the value is written.
    pub(crate) source: Source,
    /// The value. The entries of a list are separated by commas.
    pub(crate) text: String,
}

/// An option: its names, its help, its value, and where that came from.
#[derive(Debug)]
pub(crate) struct OptionInfo {
    /// Key in the file; a dot separates the table from the key in it.
    pub(crate) key: &'static str,
    /// One line of help.
    pub(crate) help: &'static str,
    /// How values are written.
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
    /// Name of the environment variable: `TONNAGE_STORAGE_SPILL_THRESHOLD`.
    pub(crate) fn variable(&self) -> String {
        let key = self.key.replace('.', "_");
        format!("TONNAGE_{}", key.to_ascii_uppercase())
    }

    /// Name of the flag, without the dashes: `storage-spill-threshold`.
    pub(crate) fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }
}

/// Reads options and collects what is known about them.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What the sources give. Of two values for an option the later one counts.
    pub(crate) given: Vec<Given>,
    /// Every option that was read, in order.
    pub(crate) options: Vec<OptionInfo>,
    /// Everything that is wrong.
    pub(crate) mistakes: Vec<Mistake>,
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
                    self.mistakes.push(Mistake::new(&given.source, what));
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

    /// Reports a mistake in the value of an option, at the source of the value.
    pub(crate) fn reject(&mut self, key: &str, what: &str) {
        let option = self.options.iter().find(|option| option.key == key);
        let source = option.map_or(Source::Default, |option| option.source.clone());
        self.mistakes
            .push(Mistake::new(&source, format!("{key}: {what}")));
    }

    /// Whether somebody set the option.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.given.iter().any(|given| given.key == key)
    }
}
