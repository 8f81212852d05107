//! Sizes and durations as people write them.
//!
//! Owns: IEC sizes (`256 MiB`) and durations (`1h30m`): reading them, and writing them back exactly.
//! Refuses: decimal units (`MB`), whose meaning differs from tool to tool, and durations without a unit.

use std::fmt::Write as _;
use std::time::Duration;

const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Units in milliseconds.
const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a size in bytes: a whole number, alone (bytes) or followed by an IEC unit.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let example = "write whole bytes or an IEC unit, such as 8 MiB";
    let factor = match SIZES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
    {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => {
            let meant = SIZES.iter().find(|(name, _)| {
                let short: String = name.chars().filter(|c| *c != 'i').collect();
                short.eq_ignore_ascii_case(unit)
                    || short.trim_end_matches('B').eq_ignore_ascii_case(unit)
            });
            return Err(match meant {
                Some((name, _)) => {
                    format!("\"{text}\" is no size: did you mean \"{number} {name}\"?")
                }
                None => format!("\"{text}\" is no size: {example}"),
            });
        }
    };
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if number.is_empty() => return Err(format!("\"{text}\" is no size: {example}")),
        Err(error) => return Err(format!("\"{text}\" is no size: {error}")),
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("\"{text}\" is more bytes than 64 bits can count"))
}

/// Writes a size so that it reads back as the same number: `256 MiB`, `1000 B`.
pub(crate) fn format_size(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*factor);
    match SIZES.iter().find(fits) {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

/// Reads a duration: whole numbers with units, largest first, such as `1h`, `1h30m`, `250ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("\"{text}\" is no duration: write numbers with units, such as 30s, 1h30m or 7d");
    let mut rest = text.trim();
    let mut total: u64 = 0;
    let mut last_unit_ms = u64::MAX;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let (number, _) = rest.split_at(rest.len() - after.len());
        let tail = after
            .trim_start()
            .trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let (unit, _) = after.split_at(after.len() - tail.len());
        let unit = DURATIONS.iter().find(|(name, _)| *name == unit.trim());
        let (Ok(number), Some((_, unit_ms))) = (number.parse::<u64>(), unit) else {
            return Err(wrong());
        };
        if *unit_ms >= last_unit_ms {
            return Err(wrong());
        }
        last_unit_ms = *unit_ms;
        total = number
            .checked_mul(*unit_ms)
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(wrong)?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration so that it reads back as the same one (to the millisecond): `1h30m`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, unit_ms) in DURATIONS {
        if left >= unit_ms {
            // Writing to a String cannot fail.
            write!(text, "{}{unit}", left / unit_ms).unwrap_or_default();
            left %= unit_ms;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// A rate for the end of a line.
pub(crate) fn format_rate(mib_per_second: f64) -> String {
    format!("  {mib_per_second:>8.1} MiB/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: what `config show` prints can be typed into a file and means the same.
    #[test]
    fn sizes_and_durations_read_back_as_themselves() {
        for bytes in [
            0,
            1,
            1000,
            1024,
            65_536,
            8 << 20,
            256 << 20,
            (1 << 30) + 1,
            3 << 40,
        ] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        for ms in [0, 250, 1000, 90_000, 5_400_000, 604_800_000, 1] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    /// Guards: a decimal unit is refused with the IEC unit that was probably meant.
    #[test]
    fn a_decimal_unit_is_refused_with_what_was_meant() {
        assert!(
            parse_size("8 MB")
                .unwrap_err()
                .contains("did you mean \"8 MiB\"?")
        );
        assert!(parse_size("8G").unwrap_err().contains("8 GiB"));
        assert_eq!(parse_size("8MiB"), Ok(8 << 20));
        assert_eq!(parse_size("8 mib"), Ok(8 << 20));
        for wrong in [
            "",
            "MiB",
            "-1",
            "1.5 GiB",
            "99999999999999999999",
            "20000000 TiB",
            "8 MiB x",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    /// Guards: a duration needs a unit, units go from large to small, and nothing overflows.
    #[test]
    fn a_duration_needs_units_in_order() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_mins(90)));
        for wrong in [
            "",
            "30",
            "s",
            "30m1h",
            "1h1h",
            "1 fortnight",
            "-1s",
            "99999999999999999d",
            "1hé",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
