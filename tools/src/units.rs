//! Sizes, durations and times as text.
//!
//! Owns: IEC sizes (`256 MiB`) and durations (`1h30m`), which are parsed and formatted exactly; times in RFC 3339.
//! Decimal units (`MB`) are rejected, because their meaning differs between tools. Durations without a unit are
//! rejected too.

use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanPrinter};
use jiff::{Span, SpanRelativeTo};

const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Parses a size: a whole number of bytes, or a number with an IEC unit.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let invalid =
        || format!("invalid size `{text}`; write whole bytes or an IEC unit, such as 8 MiB");
    let size = text.trim();
    let digits = size.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = size.split_at(digits.unwrap_or(size.len()));
    let unit = match unit.trim_start() {
        "" => "B",
        unit => unit,
    };
    let unit = SIZES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let bytes = unit.and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor));
    bytes.ok_or_else(invalid)
}

/// Formats a size exactly: `256 MiB`, `1000 B`.
pub(crate) fn format_size(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*factor);
    let (unit, factor) = SIZES.iter().find(fits).unwrap_or(&("B", 1));
    format!("{} {unit}", bytes / factor)
}

/// Parses a duration: numbers with units, largest first, such as `30s`, `1h30m` or `7d`. A day has 24 hours.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = text.trim().parse::<Span>();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let duration = duration.ok().and_then(|duration| duration.try_into().ok());
    duration.ok_or_else(|| {
        format!("invalid duration `{text}`; write numbers with units, such as 30s, 1h30m or 7d")
    })
}

/// Formats a wall-clock time as RFC 3339 UTC, in whole seconds.
pub(crate) fn format_time(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(
        || format!("{unix_ms} ms after 1970"),
        |time| time.to_string(),
    )
}

/// Formats a duration exactly: `1h30m`.
pub(crate) fn format_duration(duration: Duration) -> String {
    SpanPrinter::new()
        .spacing(Spacing::None)
        .unsigned_duration_to_string(&duration)
}

/// Formats a size rounded, for display only: `3.4 GiB`.
pub(crate) fn format_about(bytes: u64) -> String {
    match SIZES.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) if *factor > 1 => {
            // One decimal, in integers, because bytes may need all 64 bits.
            let tenths = u128::from(bytes) * 10 / u128::from(*factor);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        _ => format!("{bytes} B"),
    }
}

/// Formats a rate for the end of a line.
pub(crate) fn format_rate(mib_per_second: f64) -> String {
    format!("  {mib_per_second:>8.1} MiB/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the output of `config show` can be written into a file and has the same meaning.
    #[test]
    fn sizes_and_durations_read_back_as_themselves() {
        for bytes in [0, 1, 1000, 1024, 8 << 20, (1 << 30) + 1, 3 << 40, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (90_000, "1m30s"),
            (604_800_000, "168h"),
        ] {
            let duration = Duration::from_millis(ms);
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    /// Guards: a decimal unit is rejected, and nothing overflows.
    #[test]
    fn a_size_has_an_iec_unit() {
        assert_eq!(
            ["8", "8MiB", "8 mib"].map(parse_size),
            [Ok(8), Ok(8 << 20), Ok(8 << 20)]
        );
        let wrong = ["", "MiB", "-1", "8 MB", "8G", "1.5 GiB", "8 MiB x", "8 é"];
        for wrong in wrong
            .iter()
            .chain(&["99999999999999999999", "20000000 TiB"])
        {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    /// Guards: a duration needs a unit, units go from large to small, and nothing overflows.
    #[test]
    fn a_duration_needs_units_in_order() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for wrong in [
            "",
            "30",
            "s",
            "30m1h",
            "1h1h",
            "1 fortnight",
            "1mo",
            "-1s",
            "99999999999999999d",
            "1hé",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
