//! What the configuration means: one value for every option, and where it came from.
//!
//! Owns: [`Resolved`], the priority of sources, and rules between options.
//! Refuses: stopping at the first mistake; also a value that another source overrides is checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::diagnose::Mistake;
use crate::config::options::{OPTIONS, OptionSpec};
use crate::config::raw::Raw;
use crate::config::settings;
use crate::config::source::Source;
use crate::config::value::{Typed, Value};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// The value of one option.
#[derive(Debug, Clone)]
pub(crate) struct Effective {
    /// The option.
    pub(crate) option: &'static OptionSpec,
    /// Its value.
    pub(crate) value: Value,
    /// Where it came from.
    pub(crate) source: Source,
}

/// The values of all options, in the order of the table.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// One for each option.
    pub(crate) values: Vec<Effective>,
    /// Everything that is wrong; if not empty, nothing must be started with the values.
    pub(crate) mistakes: Vec<Mistake>,
    /// What looks wrong but changes nothing.
    pub(crate) warnings: Vec<Mistake>,
    /// The file, if one was named.
    pub(crate) file: Option<PathBuf>,
}

impl Resolved {
    /// Itself if nothing is wrong, with its warnings said; otherwise one failure that names every mistake.
    pub(crate) fn without_mistakes(self) -> Result<Self, Failure> {
        for warning in &self.warnings {
            output::note(&format!("warning: {warning}"));
        }
        if self.mistakes.is_empty() {
            return Ok(self);
        }
        let failure = Failure::new(Exit::Usage, "the configuration is wrong; nothing was done");
        Err(self.mistakes.iter().fold(failure, |failure, mistake| {
            failure.next(mistake.to_string())
        }))
    }

    /// The value of an option of the table.
    fn effective(&self, key: &str) -> &Effective {
        match self
            .values
            .iter()
            .find(|effective| effective.option.key == key)
        {
            Some(effective) => effective,
            None => unreachable!("{key} is not in the table of options"),
        }
    }

    /// Whether somebody set an option, rather than its default.
    pub(crate) fn is_given(&self, key: &str) -> bool {
        self.effective(key).source != Source::Default
    }

    /// An address, `None` for `off`.
    pub(crate) fn address(&self, key: &str) -> Option<SocketAddr> {
        match self.effective(key).value {
            Value::Address(address) => Some(address),
            Value::Off => None,
            ref other @ (Value::Path(_)
            | Value::Size(_)
            | Value::Duration(_)
            | Value::Count(_)
            | Value::Choice(_)
            | Value::Switch(_)
            | Value::Text(_)
            | Value::List(_)) => unreachable!("{key} is an address, not {other:?}"),
        }
    }

    /// Bytes, or a count.
    pub(crate) fn number(&self, key: &str) -> u64 {
        let (Value::Size(number) | Value::Count(number)) = self.effective(key).value else {
            unreachable!("{key} is not a number");
        };
        number
    }

    /// A number that counts things in memory.
    pub(crate) fn count(&self, key: &str) -> usize {
        // Bounds in the table keep numbers far below 64 bits; on a smaller machine all memory is the bound.
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    /// A span of time.
    pub(crate) fn duration(&self, key: &str) -> Duration {
        let Value::Duration(duration) = self.effective(key).value else {
            unreachable!("{key} is not a duration");
        };
        duration
    }

    /// A path.
    pub(crate) fn path(&self, key: &str) -> &Path {
        let Value::Path(path) = &self.effective(key).value else {
            unreachable!("{key} is not a path");
        };
        path
    }

    /// A word.
    pub(crate) fn word(&self, key: &str) -> &'static str {
        let Value::Choice(word) = self.effective(key).value else {
            unreachable!("{key} is not a choice");
        };
        word
    }

    /// A text that its kind has checked.
    pub(crate) fn text(&self, key: &str) -> &str {
        let Value::Text(text) = &self.effective(key).value else {
            unreachable!("{key} is not a text");
        };
        text
    }

    /// The entries of a list.
    pub(crate) fn list(&self, key: &str) -> &[String] {
        let Value::List(entries) = &self.effective(key).value else {
            unreachable!("{key} is not a list");
        };
        entries
    }

    fn switch(&self, key: &str) -> bool {
        self.effective(key).value == Value::Switch(true)
    }
}

/// Picks the value of every option and reports all mistakes.
pub(crate) fn resolve(mut raw: Raw) -> Resolved {
    let mut values: Vec<Effective> = OPTIONS.iter().map(default_of).collect();
    // Stable and from the least binding source on: the last value that is understood stays.
    raw.given.sort_by(|a, b| a.source.cmp(&b.source));
    for given in raw.given {
        let understood = match (&given.source, &given.typed) {
            // A flag or a variable has no TOML type.
            (Source::Flag { .. } | Source::Variable { .. }, Typed::Text(text)) => {
                given.option.kind.parse(text)
            }
            _ => given.option.kind.understand(&given.typed),
        };
        match understood {
            Ok(value) => {
                if let Some(effective) =
                    values.iter_mut().find(|e| e.option.key == given.option.key)
                {
                    effective.value = value;
                    effective.source = given.source;
                }
            }
            Err(what) => {
                let what = format!("{}: {what}", given.option.key);
                raw.mistakes.push(Mistake::new(given.source, what));
            }
        }
    }
    let mut resolved = Resolved {
        values,
        mistakes: raw.mistakes,
        warnings: raw.warnings,
        file: raw.file,
    };
    check_together(&mut resolved);
    resolved.mistakes.sort_by(|a, b| a.at.cmp(&b.at));
    resolved
}

fn default_of(option: &'static OptionSpec) -> Effective {
    match option.kind.parse(option.default) {
        Ok(value) => Effective {
            option,
            value,
            source: Source::Default,
        },
        Err(what) => unreachable!("the default of {} is wrong: {what}", option.key),
    }
}

/// The store's own bounds, checked by itself, by the option that leads to each.
const STORE_OPTIONS: [(&str, &str); 8] = [
    ("spill_threshold_bytes", "storage.spill_threshold"),
    ("staging_budget_bytes", "storage.staging_budget"),
    ("read_budget_bytes", "storage.read_budget"),
    ("shared_segment_bytes", "storage.shared_segment_size"),
    ("open_files_max", "storage.open_files"),
    ("delta_budget_bytes", "storage.delta_budget"),
    ("journal_file_bytes", "storage.journal_file_size"),
    ("uploads_max", "limits.uploads"),
];

/// Rules that no value can break alone.
fn check_together(resolved: &mut Resolved) {
    let mut broken: Vec<(&str, String)> = Vec::new();
    let (listen, admin) = (resolved.address("listen"), resolved.address("admin_listen"));
    // Port 0 means any free port, so two of them never collide.
    if listen == admin && listen.is_some_and(|address| address.port() != 0) {
        let what =
            "admin_listen: the registry listens on the same address; take another port, or \"off\"";
        broken.push(("admin_listen", what.to_owned()));
    }
    if let Some(address) = listen
        && !address.ip().to_canonical().is_loopback()
        && !resolved.switch("insecure_anonymous")
    {
        let what = format!(
            "listen: anybody who reaches {address} could push, pull and delete. Listen on 127.0.0.1, \
             or allow it with --insecure-anonymous"
        );
        broken.push(("listen", what));
    }
    for bad in settings::store_options(resolved)
        .validate()
        .err()
        .into_iter()
        .flatten()
    {
        let Some((_, key)) = STORE_OPTIONS
            .iter()
            .find(|(option, _)| *option == bad.option)
        else {
            unreachable!("{bad}: no option of ours leads there");
        };
        let shown = resolved.effective(key).value.show();
        broken.push((
            key,
            format!("{key}: {shown} ({}) must be {}", bad.value, bad.rule),
        ));
    }
    for (key, what) in broken {
        let at = resolved.effective(key).source.clone();
        resolved.mistakes.push(Mistake::new(at, what));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::flags::ConfigFlags;
    use crate::config::options;
    use crate::config::{file, raw};

    fn resolve_from(text: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Resolved {
        let given = flags
            .iter()
            .map(|(key, value)| (options::find(key).expect("an option"), (*value).to_owned()));
        let flags = ConfigFlags {
            file: None,
            given: given.collect(),
        };
        let variables: Vec<_> = variables
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect();
        let mut raw = raw::read(&flags, variables.into_iter());
        file::read_text(Path::new("t.toml"), text, &mut raw);
        resolve(raw)
    }

    fn shown(resolved: &Resolved, key: &str) -> String {
        let effective = resolved.effective(key);
        format!("{} from {}", effective.value.show(), effective.source)
    }

    /// Guards: flag over variable over file over default, for one option at a time.
    #[test]
    fn the_source_closest_to_the_person_wins() {
        let file = "[log]\nlevel = 'warn'\nformat = 'json'";
        let variable = [("TONNAGE_LOG_LEVEL", "debug")];
        assert_eq!(
            shown(&resolve_from("", &[], &[]), "log.level"),
            "info from default"
        );
        assert_eq!(
            shown(&resolve_from(file, &[], &[]), "log.level"),
            "warn from t.toml:2"
        );
        let resolved = resolve_from(file, &variable, &[]);
        assert_eq!(
            shown(&resolved, "log.level"),
            "debug from TONNAGE_LOG_LEVEL"
        );
        assert_eq!(shown(&resolved, "log.format"), "json from t.toml:3");
        let resolved = resolve_from(file, &variable, &[("log.level", "error")]);
        assert_eq!(shown(&resolved, "log.level"), "error from --log-level");
    }

    /// Guards: three mistakes make three reports, also where a flag overrides one of the values.
    #[test]
    fn every_mistake_is_reported_also_an_overridden_one() {
        let file = "listen = 'nowhere'\n[storage]\nread_budget = '8 MB'\nspill = 1\n";
        let resolved = resolve_from(file, &[], &[("listen", "127.0.0.1:1")]);
        let mistakes: Vec<_> = resolved.mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        for (mistake, start) in mistakes
            .iter()
            .zip(["t.toml:1: ", "t.toml:3: ", "t.toml:4: "])
        {
            assert!(mistake.starts_with(start), "{mistake}");
        }
    }

    /// Guards: without access control only loopback is served, unless it is asked for by name.
    #[test]
    fn an_open_address_needs_to_be_asked_for() {
        for address in [
            "0.0.0.0:5000",
            "[::]:5000",
            "10.1.2.3:5000",
            "[::ffff:10.1.2.3]:5000",
        ] {
            let refused = resolve_from("", &[], &[("listen", address)]);
            assert_eq!(refused.mistakes.len(), 1, "{address}");
            let flags = [("listen", address), ("insecure_anonymous", "true")];
            assert!(
                resolve_from("", &[], &flags).mistakes.is_empty(),
                "{address}"
            );
        }
        for address in [
            "127.0.0.1:5000",
            "127.9.9.9:1",
            "[::1]:5000",
            "[::ffff:127.0.0.1]:5000",
        ] {
            assert!(
                resolve_from("", &[], &[("listen", address)])
                    .mistakes
                    .is_empty(),
                "{address}"
            );
        }
    }

    /// Guards: rules between options, and where they are reported.
    #[test]
    fn options_are_checked_against_each_other() {
        let resolved = resolve_from("admin_listen = '127.0.0.1:5000'", &[], &[]);
        assert!(
            resolved.mistakes[0]
                .to_string()
                .starts_with("t.toml:1: admin_listen")
        );
        let both = [("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0")];
        assert!(resolve_from("", &[], &both).mistakes.is_empty());
        let flags = [
            ("storage.spill_threshold", "64 MiB"),
            ("storage.shared_segment_size", "16 MiB"),
        ];
        let resolved = resolve_from("", &[], &flags);
        assert_eq!(resolved.mistakes.len(), 1);
        assert!(
            resolved.mistakes[0]
                .to_string()
                .starts_with("--storage-spill-threshold: ")
        );
    }
}
