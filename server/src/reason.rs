//! Text of another server, for errors.
//!
//! Owns: the bound on it. Names of hosts and certificates are the other server's, and a report keeps many errors.

use std::error::Error;
use std::fmt::{self, Display, Write as _};

/// Most characters of an error.
const CHARS_MAX: usize = 255;

/// A text that takes no more than [`CHARS_MAX`] characters.
#[derive(Default)]
struct Shortened {
    text: String,
    chars: usize,
}

impl fmt::Write for Shortened {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for char in more.chars() {
            if self.chars == CHARS_MAX {
                return Err(fmt::Error);
            }
            self.text.push(char);
            self.chars += 1;
        }
        Ok(())
    }
}

/// Returns the beginning of a text.
pub(crate) fn shorten(text: impl Display) -> String {
    let mut short = Shortened::default();
    // It ends early if the text is too long.
    write!(short, "{text}").unwrap_or_default();
    short.text
}

/// Describes an error with its causes.
pub(crate) fn describe(error: &dyn Error) -> String {
    let mut short = Shortened::default();
    let mut written = write!(short, "{error}");
    let mut cause = error.source();
    while let Some(error) = cause
        && written.is_ok()
    {
        written = write!(short, ": {error}");
        cause = error.source();
    }
    short.text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: whatever a registry sends, an error keeps 255 characters of it.
    #[test]
    fn text_is_bounded() {
        assert_eq!(shorten("h\u{e9}:1"), "h\u{e9}:1");
        assert_eq!(shorten("\u{e9}".repeat(60_000)), "\u{e9}".repeat(255));
        let error = std::io::Error::other("x".repeat(60_000));
        assert_eq!(describe(&error), "x".repeat(255));
    }
}
