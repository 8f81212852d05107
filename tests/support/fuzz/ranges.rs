//! Fuzz target for `Range` of a download and `Content-Range` of an upload's chunk.
//!
//! The input: the content's length (8 bytes, cut to a valid length), then the header's text. Checked: every range is
//! inside the content and not empty, there are not too many, and several do not add up to more than twice the content.

use std::ops::Range;

use tonnage_engine::limits::COUNTER_MAX;
use tonnage_server::oci::range::RANGES_MAX;
use tonnage_server::oci::{ChunkRange, RangeAnswer};

use super::input::Input;

/// Runs the target on one header.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let length = u64::from_le_bytes(input.array()) & COUNTER_MAX;
    let Ok(text) = std::str::from_utf8(input.all()) else {
        return;
    };
    let inside = |range: &Range<u64>| {
        assert!(
            range.start < range.end && range.end <= length,
            "{range:?} of {length}"
        );
    };
    match RangeAnswer::of(text, length) {
        RangeAnswer::One(range) => inside(&range),
        RangeAnswer::Several(ranges) => {
            assert!((2..=RANGES_MAX).contains(&ranges.len()));
            ranges.iter().for_each(inside);
            let total: u128 = ranges.iter().map(|r| u128::from(r.end - r.start)).sum();
            assert!(total <= 2 * u128::from(length));
        }
        RangeAnswer::Whole | RangeAnswer::Unsatisfiable | RangeAnswer::Excessive => {}
    }
    if let Ok(chunk) = text.parse::<ChunkRange>() {
        let last = chunk.first.checked_add(chunk.length - 1);
        let last = last.expect("the chunk ends at a valid offset");
        let printed = format!("{}-{last}", chunk.first);
        assert_eq!(printed.parse::<ChunkRange>(), Ok(chunk));
    }
}
