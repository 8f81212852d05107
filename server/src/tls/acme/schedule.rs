//! When a certificate is fetched.
//!
//! Owns: the decisions, as pure functions. Times are seconds of Unix.
//!
//! The limits of Let's Encrypt count most: 5 failed verifications of a name in an hour, and 5 certificates for the same
//! names in a week.

use std::time::Duration;

use super::error::AcmeError;

/// First pause after the authority could not be reached before an order, which counts against no limit.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(15);
/// First pause after a failed order: with those that follow, at most four orders in an hour.
const ORDER_PAUSE: Duration = Duration::from_mins(5);
/// Pause after a certificate that cannot be used, or kept: Let's Encrypt allows another after 34 hours.
const ISSUED_PAUSE: Duration = Duration::from_hours(34);
/// Longest pause that grows with the failures. A certificate of six days still has two when it is renewed.
const PAUSE_MAX: Duration = Duration::from_hours(2);
/// Longest pause that the authority may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_hours(36);
/// Least time from a failed order to the first one after a restart: four in an hour.
const RESTART_PAUSE_S: i64 = 15 * 60;

/// Returns whether another certificate is needed: for names that it is not for, or because a third of its life is left.
pub(super) fn is_due(hosts: &[String], valid: [i64; 2], names: &[String], now: i64) -> bool {
    let [begin, end] = valid;
    let life = end.saturating_sub(begin);
    let has_all = names
        .iter()
        .all(|name| hosts.iter().any(|host| host.eq_ignore_ascii_case(name)));
    !has_all || end.saturating_sub(now) <= life / 3
}

/// Returns how long to wait after a start, if an order before it failed at `last`.
pub(super) fn first_pause(last: i64, now: i64) -> Duration {
    let elapsed = now.saturating_sub(last);
    // A clock that was set back must not stop everything.
    let elapsed = if elapsed < 0 {
        RESTART_PAUSE_S
    } else {
        elapsed
    };
    let left = RESTART_PAUSE_S.saturating_sub(elapsed);
    Duration::from_secs(u64::try_from(left).unwrap_or_default())
}

/// Returns how long to wait after a certificate that is valid so long, whatever becomes of it.
pub(super) fn pause_after(valid: [i64; 2]) -> Duration {
    let [begin, end] = valid;
    let third = end.saturating_sub(begin) / 3;
    ISSUED_PAUSE.min(Duration::from_secs(
        u64::try_from(third).unwrap_or_default(),
    ))
}

/// Returns how long to wait after a failure, the last of `in_a_row`, if the authority asked to wait for `asked`.
/// `has_ordered` says whether an order had begun.
pub(super) fn pause(
    error: &AcmeError,
    has_ordered: bool,
    in_a_row: u32,
    asked: Duration,
) -> Duration {
    let first = match error {
        AcmeError::Issued(_) => return ISSUED_PAUSE,
        AcmeError::Unreachable(_) | AcmeError::Runtime(_) if !has_ordered => UNREACHABLE_PAUSE,
        AcmeError::Unreachable(_)
        | AcmeError::Runtime(_)
        | AcmeError::File(_)
        | AcmeError::Tls(_)
        | AcmeError::Refused(_)
        | AcmeError::NoChallenge(_)
        | AcmeError::NotVerified { .. }
        | AcmeError::Late => ORDER_PAUSE,
    };
    let doublings = in_a_row.saturating_sub(1).min(16);
    let grown = first.saturating_mul(1 << doublings).min(PAUSE_MAX);
    grown.max(asked.min(ASKED_PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a certificate is replaced when a third of its life is left, and when a name is added, and not earlier.
    #[test]
    fn certificates_are_replaced_in_time() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (hosts, valid) = (names(&["A.example", "10.0.0.7"]), [0, 90]);
        for (wanted, now, expected) in [
            (&["a.example"][..], 0, false),
            (&["a.example", "10.0.0.7"], 59, false),
            (&["a.example"], 60, true),
            (&["a.example"], 1000, true),
            (&["a.example", "b.example"], 0, true),
        ] {
            assert_eq!(
                is_due(&hosts, valid, &names(wanted), now),
                expected,
                "{wanted:?} {now}"
            );
        }
        assert!(is_due(
            &hosts,
            [i64::MAX, i64::MIN],
            &names(&["a.example"]),
            0
        ));
    }

    /// Guards: failures stay within the limits of the authority, also over restarts, and pauses end.
    #[test]
    fn failures_are_rare() {
        let failed = AcmeError::Refused(String::new());
        let mut orders_at = vec![Duration::ZERO];
        for failures in 1..100 {
            let last = *orders_at.last().unwrap();
            orders_at.push(last + pause(&failed, true, failures, Duration::ZERO));
        }
        for (index, begin) in orders_at.iter().enumerate() {
            let end = *begin + Duration::from_hours(1);
            let within = orders_at[index..]
                .iter()
                .take_while(|at| **at < end)
                .count();
            assert!(within <= 4, "{within} orders in an hour");
        }
        assert_eq!(pause(&failed, true, u32::MAX, Duration::ZERO), PAUSE_MAX);
        assert_eq!(
            pause(&failed, true, 1, Duration::from_hours(3)),
            Duration::from_hours(3)
        );
        assert_eq!(pause(&failed, true, 1, Duration::MAX), ASKED_PAUSE_MAX);
        assert_eq!(pause_after([0, 90]), Duration::from_secs(30));
        assert_eq!(pause_after([0, i64::MAX]), ISSUED_PAUSE);
        let unreachable = AcmeError::Unreachable(String::new());
        for (error, has_ordered, expected) in [
            (&unreachable, false, UNREACHABLE_PAUSE),
            (&unreachable, true, ORDER_PAUSE),
            (&AcmeError::Issued(String::new()), true, ISSUED_PAUSE),
        ] {
            assert_eq!(pause(error, has_ordered, 1, Duration::ZERO), expected);
        }
        for (last, expected_s) in [(0, 0), (9_000, 0), (9_700, 600), (10_000, 900), (11_000, 0)] {
            assert_eq!(
                first_pause(last, 10_000),
                Duration::from_secs(expected_s),
                "{last}"
            );
        }
    }
}
