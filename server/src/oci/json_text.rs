//! The length of texts in JSON.
//!
//! Owns: [`json_bytes`] and [`cut_to_json_bytes`], for texts from clients that must fit in a bounded document.
//! Refuses: writing JSON, which `serde_json` does.

/// Returns the length of a text in bytes as JSON, without its quotes.
pub(crate) fn json_bytes(text: &str) -> usize {
    text.chars().map(character_bytes).sum()
}

/// Returns the start of a text that has at most `max` bytes as JSON, without its quotes.
pub(crate) fn cut_to_json_bytes(text: &str, max: usize) -> &str {
    let mut bytes = 0;
    let mut fits = |character| {
        bytes += character_bytes(character);
        bytes <= max
    };
    let end = text.char_indices().find(|(_, character)| !fits(*character));
    end.map_or(text, |(end, _)| text.split_at(end).0)
}

fn character_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\u{0}'..='\u{1f}' => 6,
        _ => character.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the length is what the encoder writes, for every character, and a cut text is the longest that fits.
    #[test]
    fn lengths_are_those_of_the_encoder() {
        for character in '\u{0}'..='\u{2fff}' {
            let text = String::from(character).repeat(3);
            let encoded = serde_json::to_string(&text).unwrap().len() - 2;
            assert_eq!(json_bytes(&text), encoded, "{character:?}");
            let two = encoded / 3 * 2;
            for (max, kept) in [
                (encoded, 3),
                (encoded - 1, 2),
                (two, 2),
                (two - 1, 1),
                (0, 0),
            ] {
                assert_eq!(
                    cut_to_json_bytes(&text, max).chars().count(),
                    kept,
                    "{character:?}"
                );
            }
        }
    }
}
