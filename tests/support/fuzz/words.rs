//! Fuzz target for text values from a path, a query or a header: names, references, digests, media types, patterns,
//! pages, ids of uploads.
//!
//! Checked: an accepted value prints as it was written (a media type without its parameters) and is accepted again, and
//! none exceeds its limit.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use tonnage_engine::limits::{REPOSITORY_NAME_BYTES_MAX, TAG_BYTES_MAX};
use tonnage_engine::{Algorithm, UploadId};
use tonnage_server::oci::page::PAGE_MAX;
use tonnage_server::oci::{
    Digest, MediaType, Page, Reference, RepositoryName, RepositoryPattern, Tag,
};

/// The limit for an error message, which must not repeat the client's text.
const REFUSAL_BYTES_MAX: usize = 2048;

/// Runs the target on one text, as each kind of value.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let name = exact::<RepositoryName>(text, REPOSITORY_NAME_BYTES_MAX);
    exact::<Tag>(text, TAG_BYTES_MAX);
    exact::<Reference>(text, 7 + 128);
    exact::<Digest>(text, 7 + 128);
    exact::<UploadId>(text, 36);
    let pattern = exact::<RepositoryPattern>(text, REPOSITORY_NAME_BYTES_MAX + 2);
    if let (Some(pattern), Some(name)) = (pattern, name) {
        assert!(pattern.matches(&name), "{text:?} does not match itself");
    }
    if let Some(algorithm) = Algorithm::from_name(text) {
        assert_eq!(algorithm.name(), text);
    }
    if let Ok(media_type) = text.parse::<MediaType>() {
        let printed = media_type.to_string();
        let folded = text.trim_start().to_ascii_lowercase();
        assert!(printed.len() <= 255 && folded.starts_with(&printed));
        assert_eq!(printed.parse::<MediaType>().as_ref(), Ok(&media_type));
        assert!(!(media_type.is_image() && media_type.is_index()));
    }
    let (n, last) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(page) = Page::new(Some(n), Some(last)) {
        assert!(page.limit <= PAGE_MAX && page.last.as_deref() != Some(""));
    }
}

/// Parses `text` as a `T`, which must print as it was written.
fn exact<T: FromStr<Err: Display> + Display + Debug + PartialEq>(
    text: &str,
    bytes_max: usize,
) -> Option<T> {
    match text.parse::<T>() {
        Ok(parsed) => {
            assert!(
                text.len() <= bytes_max,
                "{} bytes were accepted",
                text.len()
            );
            assert_eq!(parsed.to_string(), text);
            Some(parsed)
        }
        Err(error) => {
            let refusal = error.to_string();
            assert!(refusal.len() <= REFUSAL_BYTES_MAX, "{refusal}");
            None
        }
    }
}
