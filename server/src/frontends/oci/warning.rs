//! `Warning` headers (distribution-spec, "Warnings") of requests that succeeded, for users.
//!
//! Owns: their form, and their limit of 4096 bytes in an answer. Clients only print them.
//! Refuses: errors, which have a status; advice that the user of the client cannot follow, because users would ignore a
//! line that every push prints.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, response};

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Largest size of all warnings of an answer, in bytes. Header names, separators and line ends are included, to be
/// safe.
const BYTES_MAX: usize = 4096;
/// Bytes of `warning: ` and the line end.
const FRAME_BYTES: usize = 11;

/// Adds these warnings to an answer, as many as fit.
pub(super) fn with<'a>(
    builder: response::Builder,
    texts: impl IntoIterator<Item = &'a str>,
) -> response::Builder {
    let mut left = BYTES_MAX;
    texts.into_iter().fold(builder, |builder, text| {
        let value = quoted(text);
        let fits = left.checked_sub(value.len() + FRAME_BYTES);
        match (fits, HeaderValue::try_from(value)) {
            (Some(rest), Ok(value)) => {
                left = rest;
                builder.header(WARNING, value)
            }
            _ => builder,
        }
    })
}

/// Formats code, agent and a quoted string (RFC 7234 section 5.5, RFC 9110 section 5.6.4). A character that a header
/// cannot contain becomes a question mark.
fn quoted(text: &str) -> String {
    let mut value = String::from("299 - \"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                write!(value, "\\{letter}").unwrap_or_default();
            }
            ' '..='~' => value.push(letter),
            _ => value.push('?'),
        }
    }
    value.push('"');
    value
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn warnings(texts: &[&str]) -> Vec<String> {
        let builder = with(Response::builder(), texts.iter().copied());
        let response = builder.body(()).unwrap();
        let values = response.headers().get_all("warning").iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    /// Guards: spec, "Warnings": code 299, agent `-`, no date, a valid quoted string.
    #[test]
    fn warnings_have_the_one_form() {
        assert_eq!(
            warnings(&["two of 3", "say \"no\\yes\"\r\nX: \u{e4}"]),
            [
                "299 - \"two of 3\"",
                "299 - \"say \\\"no\\\\yes\\\"??X: ?\""
            ]
        );
        assert!(warnings(&[]).is_empty());
    }

    /// Guards: spec, "Warnings": at most 4096 bytes in all headers together; warnings that fit are still sent.
    #[test]
    fn warnings_are_bounded_together() {
        let long = "x".repeat(1500);
        let said = warnings(&[&long, &long, &long, "short"]);
        assert_eq!(said.len(), 3);
        assert!(said[2].contains("short"));
        let bytes: usize = said
            .iter()
            .map(|value| value.len() + "warning: \r\n".len())
            .sum();
        assert!(bytes <= 4096, "{bytes}");
        assert!(warnings(&["\"".repeat(4000).as_str()]).is_empty());
    }
}
