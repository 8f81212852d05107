//! `tonnage config show`: prints every effective value and its source.
//!
//! Owns: the listing. It lists nothing if the configuration has errors, because the values would not be the effective
//! ones.

use serde::Serialize;
use serde_json::Value;

use crate::config;
use crate::config::error::Source;
use crate::config::flags::ConfigFlags;
use crate::config::kind::Form;
use crate::config::reader::OptionInfo;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::units;

/// Arguments of `config show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigShow {
    /// Print the result as JSON: sizes in bytes, durations in milliseconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Serialize)]
struct Listing<'a> {
    options: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    key: &'static str,
    value: Value,
    source: &'a Source,
}

/// Prints all values.
pub(crate) fn run(arguments: &ConfigShow) -> Result<Exit, Failure> {
    let options = config::load(&arguments.flags).into_valid()?.options;
    if arguments.json {
        let options = options.iter().map(row).collect();
        output::json(&Listing { options })?;
        return Ok(Exit::Done);
    }
    let width = |text: fn(&OptionInfo) -> &str| options.iter().map(|o| text(o).len()).max();
    let keys = width(|option| option.key).unwrap_or(0);
    let values = width(|option| &option.value).unwrap_or(0);
    for OptionInfo {
        key,
        value,
        source,
        help,
        ..
    } in &options
    {
        output::result(&format!(
            "{key:keys$} = {value:values$}  # {source}: {help}"
        ))?;
    }
    Ok(Exit::Done)
}

fn row(option: &OptionInfo) -> Row<'_> {
    Row {
        key: option.key,
        value: json(option.form, &option.value),
        source: &option.source,
    }
}

/// Returns a value for programs: sizes in bytes, durations in milliseconds.
fn json(form: Form, text: &str) -> Value {
    let value = match form {
        Form::Path | Form::File | Form::Address | Form::Word => None,
        // A number may also be a word, such as `auto`.
        Form::Switch | Form::Number => serde_json::from_str(text).ok(),
        Form::Size => units::parse_size(text).ok().map(Value::from),
        Form::Duration => {
            let duration = units::parse_duration(text).ok();
            let milliseconds = duration.and_then(|time| u64::try_from(time.as_millis()).ok());
            milliseconds.map(Value::from)
        }
        Form::List if text == "none" => Some(Value::Array(Vec::new())),
        Form::List => Some(text.split(',').collect()),
    };
    value.unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: values have their types in JSON, and a masked secret stays masked.
    #[test]
    fn values_are_typed_in_json() {
        for (form, text, expected) in [
            (Form::Switch, "true", "true"),
            (Form::Number, "8", "8"),
            (Form::Number, "auto", "\"auto\""),
            (Form::Size, "1 MiB", "1048576"),
            (Form::Duration, "1m30s", "90000"),
            (Form::List, "none", "[]"),
            (Form::List, "a,b/*", "[\"a\",\"b/*\"]"),
            (Form::Path, "8", "\"8\""),
            (Form::Size, "********", "\"********\""),
        ] {
            assert_eq!(json(form, text).to_string(), expected);
        }
    }
}
