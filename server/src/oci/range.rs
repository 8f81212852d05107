//! Byte ranges of downloads (RFC 9110 section 14) and of upload chunks (distribution-spec, "Pushing a blob in chunks").
//!
//! Owns: [`RangeAnswer`], the meaning of a `Range` header for content of a known length; [`ChunkRange`].
//! Refuses: units other than bytes (they are ignored, as the RFC allows).
//!
//! Invariant: every returned range lies inside the content and is not empty.

use std::ops::Range;
use std::str::FromStr;

/// Most ranges of one request. Clients that pull lazily send up to this many.
pub const RANGES_MAX: usize = 1024;

/// The kind of answer to a `Range` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeAnswer {
    /// No valid range: the whole content, 200.
    Whole,
    /// One range: 206.
    One(Range<u64>),
    /// Several ranges in the order of the request, not merged: 206 as multipart/byteranges.
    Several(Vec<Range<u64>>),
    /// No range lies inside the content: 416.
    Unsatisfiable,
    /// Too many ranges, or overlapping ones that add up to more than twice the content: 400. Clients then request fewer
    /// (RFC 9110 section 17.15).
    Excessive,
}

impl RangeAnswer {
    /// Evaluates the header for content of `length` bytes.
    pub fn of(header: &str, length: u64) -> Self {
        let Some((unit, set)) = header.split_once('=') else {
            return Self::Whole;
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        let mut ranges = Vec::new();
        let mut specs = 0;
        let mut suffix = false;
        for (count, spec) in set
            .split(',')
            .map(str::trim)
            .filter(|spec| !spec.is_empty())
            .enumerate()
        {
            if count == RANGES_MAX {
                return Self::Excessive;
            }
            specs = count + 1;
            match one(spec, length) {
                Spec::Malformed => return Self::Whole,
                Spec::Outside => {}
                Spec::WholeOfNothing => suffix = true,
                Spec::Inside(range) => ranges.push(range),
            }
        }
        // An empty set is malformed (`1#range-spec`), and a malformed header is ignored.
        if specs == 0 {
            return Self::Whole;
        }
        // No Content-Range can express it, so the answer is the whole content, which is empty.
        if suffix {
            return Self::Whole;
        }
        let total = ranges.iter().fold(0_u64, |sum, range| {
            sum.saturating_add(range.end - range.start)
        });
        match <[Range<u64>; 1]>::try_from(ranges) {
            Ok([range]) => Self::One(range),
            Err(ranges) if ranges.is_empty() => Self::Unsatisfiable,
            Err(_) if total > length.saturating_mul(2) => Self::Excessive,
            Err(ranges) => Self::Several(ranges),
        }
    }
}

enum Spec {
    Malformed,
    Outside,
    /// The last bytes of empty content: satisfiable (RFC 9110 section 14.1.2).
    WholeOfNothing,
    Inside(Range<u64>),
}

fn one(spec: &str, length: u64) -> Spec {
    let Some((first, last)) = spec.split_once('-') else {
        return Spec::Malformed;
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        // A last byte before the first may be ignored or rejected; clients and the conformance program expect a
        // rejection.
        (Some(_), Some(_)) => return Spec::Outside,
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(suffix)) if first.is_empty() && suffix > 0 && length == 0 => {
            return Spec::WholeOfNothing;
        }
        (None, Some(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        _ => return Spec::Malformed,
    };
    if range.is_empty() {
        Spec::Outside
    } else {
        Spec::Inside(range)
    }
}

/// Parses a decimal number. One that exceeds 64 bits becomes the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// The `Content-Range` of an upload's chunk: `first-last`, inclusive, without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRange {
    /// Offset of the chunk's first byte.
    pub first: u64,
    /// Bytes in the chunk, at least 1.
    pub length: u64,
}

/// The error that the header is not of the form `first-last`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Content-Range of a chunk must be first-last, two offsets in bytes, with last not before first"
)]
pub struct InvalidChunkRange;

impl FromStr for ChunkRange {
    type Err = InvalidChunkRange;

    fn from_str(text: &str) -> Result<Self, InvalidChunkRange> {
        let (first, last) = text.split_once('-').ok_or(InvalidChunkRange)?;
        let first = number(first).ok_or(InvalidChunkRange)?;
        let last = number(last).ok_or(InvalidChunkRange)?;
        let length = last.checked_sub(first).and_then(|span| span.checked_add(1));
        Ok(Self {
            first,
            length: length.ok_or(InvalidChunkRange)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Guards: RFC 9110 section 14.1.2 and the ranges of the conformance program.
    #[test]
    fn ranges_of_a_download() {
        use RangeAnswer::{One, Several, Unsatisfiable, Whole};
        let cases = [
            ("bytes=500-1499", One(500..1500)),
            ("bytes=500-", One(500..3000)),
            ("bytes=-500", One(2500..3000)),
            ("bytes=-5000", One(0..3000)),
            ("bytes=2000-5000", One(2000..3000)),
            ("bytes=0-99999999999999999999999999", One(0..3000)),
            ("Bytes = 0-0", One(0..1)),
            ("bytes=5000-10000", Unsatisfiable),
            ("bytes=3000-", Unsatisfiable),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-6, 0-1,-2", Several(vec![5..7, 0..2, 2998..3000])),
            ("bytes=0-1,9000-", One(0..2)),
            ("items=0-1", Whole),
            ("bytes", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("bytes= , ,", Whole),
            ("bytes=,0-0,", One(0..1)),
            ("bytes=a-b", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=+1-2", Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(RangeAnswer::of(header, 3000), expected, "{header}");
        }
        assert_eq!(RangeAnswer::of("bytes=0-", 0), Unsatisfiable);
    }

    /// Guards: the limits on the work of one request: the number of ranges, and bytes requested repeatedly.
    #[test]
    fn excessive_ranges() {
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert!(
            matches!(RangeAnswer::of(&many(1024), 4096), RangeAnswer::Several(all) if all.len() == 1024)
        );
        assert_eq!(RangeAnswer::of(&many(1025), 4096), RangeAnswer::Excessive);
        assert_eq!(
            RangeAnswer::of("bytes=0-,0-,0-", 10),
            RangeAnswer::Excessive
        );
    }

    /// Guards: distribution-spec, "Pushing a blob in chunks", `^[0-9]+-[0-9]+$`.
    #[test]
    fn ranges_of_a_chunk() {
        assert_eq!(
            "0-0".parse(),
            Ok(ChunkRange {
                first: 0,
                length: 1
            })
        );
        assert_eq!(
            "10-29".parse(),
            Ok(ChunkRange {
                first: 10,
                length: 20
            })
        );
        for bad in [
            "",
            "-",
            "1-",
            "-1",
            "2-1",
            "bytes 0-1/2",
            "0-1/2",
            " 0-1",
            "a-b",
            "0-18446744073709551615",
        ] {
            assert_eq!(bad.parse::<ChunkRange>(), Err(InvalidChunkRange), "{bad:?}");
        }
    }

    proptest! {
        /// Guards: any header gets an answer whose ranges lie inside the content.
        #[test]
        fn any_header_is_judged(header in "(bytes=)?[0-9, a-]{0,40}|\\PC{0,30}", length in 0_u64..100) {
            let inside = |range: &Range<u64>| !range.is_empty() && range.end <= length;
            match RangeAnswer::of(&header, length) {
                RangeAnswer::One(range) => prop_assert!(inside(&range)),
                RangeAnswer::Several(ranges) => prop_assert!(ranges.iter().all(inside)),
                RangeAnswer::Whole | RangeAnswer::Unsatisfiable | RangeAnswer::Excessive => {}
            }
            drop(header.parse::<ChunkRange>());
        }
    }
}
