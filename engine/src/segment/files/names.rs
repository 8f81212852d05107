//! File names of segments.

use crate::extent::SegmentId;

const SUFFIX: &str = ".segment";

/// Returns the file name of a segment.
pub(crate) fn segment_name(id: SegmentId) -> String {
    format!("{id}{SUFFIX}")
}

/// Parses the file name of a segment; `None` if [`segment_name`] does not make this name.
pub(crate) fn parse_segment_name(name: &str) -> Option<SegmentId> {
    let id = SegmentId(u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?);
    (segment_name(id) == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: only names that [`segment_name`] makes are taken for segments.
    #[test]
    fn names_round_trip() {
        assert_eq!(segment_name(SegmentId(0xab)), "00000000000000ab.segment");
        assert_eq!(
            parse_segment_name("00000000000000ab.segment"),
            Some(SegmentId(0xab))
        );
        for name in [
            "ab.segment",
            "00000000000000AB.segment",
            "+0000000000000ab.segment",
            ".segment",
            "x",
        ] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }
}
