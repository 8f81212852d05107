//! The format of fields in a log line.
//!
//! Owns: [`PlainFields`]: `name=value` without colour; a text is quoted unless it is a plain word, and control
//! characters are escaped.
//!
//! The fields of a request are written for every request, even if nothing is logged. So a plain word is copied without
//! formatting.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats the fields of spans and events.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainFields;

/// Room for the fields of a request.
const REQUEST_FIELDS_BYTES: usize = 192;

struct Line {
    text: String,
    written: fmt::Result,
}

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        // Written at once, because the writer's string grows with each part.
        let mut line = Line {
            text: String::with_capacity(REQUEST_FIELDS_BYTES),
            written: Ok(()),
        };
        fields.record(&mut line);
        line.written?;
        writer.write_str(&line.text)
    }
}

impl Line {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        let name = field.name();
        // Fields of the `log` crate's records, which name their origin.
        if name.starts_with("log.") || self.written.is_err() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        if name != "message" {
            self.text.push_str(name.strip_prefix("r#").unwrap_or(name));
            self.text.push('=');
        }
        self.written = value(&mut self.text);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_word = !value.is_empty() && value.bytes().all(is_word_byte);
        self.write(field, |text| {
            if is_word {
                text.push_str(value);
                return Ok(());
            }
            fmt::write(&mut Escaped(text), format_args!("{value:?}"))
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let is_message = field.name() == "message";
        self.write(field, |text| {
            let from = text.len();
            fmt::write(&mut Escaped(text), format_args!("{value:?}"))?;
            // A text that is displayed may contain what looks like another field.
            if !is_message && text[from..].contains('=') {
                let quoted = format!("{:?}", &text[from..]);
                text.truncate(from);
                text.push_str(&quoted);
            }
            Ok(())
        });
    }
}

/// Escapes control characters, so that a value never ends a line.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            let plain = piece.trim_end_matches(char::is_control);
            self.0.push_str(plain);
            let control = piece.chars().filter(|letter| letter.is_control());
            self.0.extend(control.flat_map(char::escape_default));
        }
        Ok(())
    }
}

/// Bytes that need no quotes: they neither end a field nor look like another one.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Guards: text from a client cannot imitate another field or another line.
    #[test]
    fn texts_are_quoted_unless_they_are_words() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(PlainFields)
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", id = "a-1", route = "/v2/{name}");
            let error = "no\nroom";
            span.in_scope(|| {
                let feigned = "\"a\" status=200";
                tracing::warn!(count = 3, %error, %feigned, text = "a=b \"c\"\n", empty = "", "full");
            });
        });
        let kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = " WARN request{id=a-1 route=/v2/{name}}: full count=3 error=no\\nroom feigned=\"\\\"a\\\" status=200\" text=\"a=b \\\"c\\\"\\n\" empty=\"\"\n";
        assert_eq!(String::from_utf8_lossy(&kept), expected);
    }
}
