//! Values in the file of access rules.
//!
//! Owns: values that may be one or many, and errors that name their place.

use std::str::FromStr;

use serde::Deserialize;

/// A text, or a list of texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Parses a text. An error begins with the place.
pub(super) fn parse<T: FromStr>(text: &str, place: &str) -> Result<T, String>
where
    T::Err: ToString,
{
    text.parse()
        .map_err(|error: T::Err| format!("{place}: {}", error.to_string()))
}
