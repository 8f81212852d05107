//! `tonnage config show`: every effective value, and where it came from.
//!
//! Owns: the listing, with secrets masked.
//! Refuses: showing values of a configuration that has mistakes: they would not be the effective ones.

use serde::Serialize;

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::config::resolve::Effective;
use crate::config::source::Source;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// Arguments of `config show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigShow {
    /// Print the result as JSON: sizes in bytes, durations in milliseconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

const MASK: &str = "********";

#[derive(Serialize)]
struct Listing<'a> {
    options: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    key: &'static str,
    value: serde_json::Value,
    source: &'a Source,
}

/// Prints all values.
pub(crate) fn run(arguments: &ConfigShow) -> Result<Exit, Failure> {
    let resolved = config::load(&arguments.flags).without_mistakes()?;
    if arguments.json {
        let options = resolved.values.iter().map(row).collect();
        output::json(&Listing { options })?;
        return Ok(Exit::Done);
    }
    let shown: Vec<String> = resolved.values.iter().map(shown).collect();
    let keys = resolved
        .values
        .iter()
        .map(|effective| effective.option.key.len())
        .max()
        .unwrap_or(0);
    let width = shown.iter().map(String::len).max().unwrap_or(0);
    for (effective, shown) in resolved.values.iter().zip(&shown) {
        let line = format!(
            "{:keys$} = {shown:width$}  # {}: {}",
            effective.option.key, effective.source, effective.option.help
        );
        output::result(&line)?;
    }
    Ok(Exit::Done)
}

fn shown(effective: &Effective) -> String {
    if effective.option.secret {
        MASK.to_owned()
    } else {
        effective.value.show()
    }
}

fn row(effective: &Effective) -> Row<'_> {
    let value = if effective.option.secret {
        MASK.into()
    } else {
        effective.value.to_json()
    };
    Row {
        key: effective.option.key,
        value,
        source: &effective.source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::OptionSpec;
    use crate::config::value::{Kind, Value};

    /// Guards: a secret is shown neither in text nor in JSON.
    #[test]
    fn secrets_are_masked() {
        static SECRET: OptionSpec = OptionSpec {
            key: "auth.password",
            kind: Kind::Path,
            default: "x",
            secret: true,
            help: "made up for this test",
        };
        let value = Value::Path("hunter2".into());
        let effective = Effective {
            option: &SECRET,
            value,
            source: Source::Default,
        };
        assert_eq!(shown(&effective), MASK);
        assert_eq!(row(&effective).value, MASK);
    }
}
