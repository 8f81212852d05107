//! When a certificate is fetched, and which of two is shown.
//!
//! Owns: the decisions, as pure functions, and [`Pause`]. Times are seconds of Unix.
//!
//! The limits of Let's Encrypt count most: 5 failed verifications of a name in an hour, and 5 certificates for the same
//! names in a week.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::identity::Identity;
use super::error::AcmeError;
use super::http::RETRY_AFTER_MAX;

/// First pause after the authority could not be reached before an order, which counts against no limit.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(15);
/// First pause after a failed order: with those that follow, at most four orders in an hour.
const ORDER_PAUSE: Duration = Duration::from_mins(5);
/// Pause after a certificate that cannot be used: Let's Encrypt allows another after 34 hours.
const ISSUED_PAUSE: Duration = Duration::from_hours(34);
/// Shortest pause after a certificate, so that one with a short life leads to at most four orders in an hour, too.
const ISSUED_PAUSE_MIN: Duration = Duration::from_mins(15);
/// Longest pause that grows with the failures. A certificate of six days still has two when it is renewed.
const PAUSE_MAX: Duration = Duration::from_hours(2);

/// A pause between two attempts, as it is written to a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    /// Failed attempts since the last certificate.
    pub(super) failures: u32,
    not_before_unix_s: i64,
    length_s: u64,
}

impl Pause {
    /// Creates a pause that begins now.
    pub(super) fn new(failures: u32, length: Duration, now: i64) -> Self {
        let length_s = length.as_secs();
        Self {
            failures,
            not_before_unix_s: now.saturating_add_unsigned(length_s),
            length_s,
        }
    }

    /// Returns the pause to assume if none can be read.
    pub(super) fn unknown(now: i64) -> Self {
        Self::new(1, ORDER_PAUSE, now)
    }

    /// Returns what is left of a pause that began, or was read, `elapsed` ago. It ends when the clock reaches its end
    /// or when its length has passed, so that no change of the clock makes it longer.
    pub(super) fn left(&self, elapsed: Duration, now: i64) -> Duration {
        let left_s = self.not_before_unix_s.saturating_sub(now);
        let by_clock = Duration::from_secs(u64::try_from(left_s).unwrap_or_default());
        let length = Duration::from_secs(self.length_s).min(RETRY_AFTER_MAX);
        by_clock.min(length.saturating_sub(elapsed))
    }
}

/// Returns whether another certificate is needed than the one that is shown: for a placeholder, for names that it is
/// not for, or because a third of its life is left.
pub(super) fn is_due(shown: &Identity, names: &[String], now: i64) -> bool {
    let [begin, end] = shown.valid_unix_s;
    let life = end.saturating_sub(begin);
    shown.is_placeholder || !has_all(shown, names) || end.saturating_sub(now) <= life / 3
}

/// Returns whether a certificate is to be shown in place of another one: it is for all names and the other is not, or
/// it ends later. The clock has no part in it. A placeholder never replaces a certificate.
pub(super) fn is_better(new: &Identity, old: &Identity, names: &[String]) -> bool {
    if new.is_placeholder || old.is_placeholder {
        return !new.is_placeholder;
    }
    let [[_, new_end], [_, old_end]] = [new, old].map(|identity| identity.valid_unix_s);
    (has_all(new, names), new_end) > (has_all(old, names), old_end)
}

fn has_all(identity: &Identity, names: &[String]) -> bool {
    let mut names = names.iter();
    names.all(|name| {
        let mut hosts = identity.hosts.iter();
        hosts.any(|host| host.eq_ignore_ascii_case(name))
    })
}

/// Returns how long to wait after a certificate that is valid so long, whatever becomes of it.
pub(super) fn pause_after([begin, end]: [i64; 2]) -> Duration {
    let third_s = u64::try_from(end.saturating_sub(begin) / 3).unwrap_or_default();
    Duration::from_secs(third_s).clamp(ISSUED_PAUSE_MIN, ISSUED_PAUSE)
}

/// Returns how long to wait after the last of some failures in a row, if the authority asked to wait for `retry_after`.
/// `has_ordered` says whether an order had begun.
pub(super) fn pause(
    error: &AcmeError,
    has_ordered: bool,
    failures: u32,
    retry_after: Duration,
) -> Duration {
    let first = match error {
        AcmeError::Issued(_) => return ISSUED_PAUSE,
        AcmeError::Unreachable(_) | AcmeError::Runtime(_) if !has_ordered => UNREACHABLE_PAUSE,
        AcmeError::Unreachable(_)
        | AcmeError::Runtime(_)
        | AcmeError::File(_)
        | AcmeError::Tls(_)
        | AcmeError::Refused(_)
        | AcmeError::UnknownAccount
        | AcmeError::NoChallenge(_)
        | AcmeError::NotVerified { .. }
        | AcmeError::Late
        | AcmeError::Panic => ORDER_PAUSE,
    };
    let doublings = failures.saturating_sub(1).min(16);
    let grown = first.saturating_mul(1 << doublings).min(PAUSE_MAX);
    grown.max(retry_after.min(RETRY_AFTER_MAX))
}

/// Returns whether the authority may count a failure before an order, so that its pause has to hold after a restart.
pub(super) fn is_counted(error: &AcmeError, retry_after: Duration) -> bool {
    let is_local = matches!(
        error,
        AcmeError::Unreachable(_) | AcmeError::Runtime(_) | AcmeError::File(_) | AcmeError::Tls(_)
    );
    !is_local || !retry_after.is_zero()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::super::AcmeOptions;
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn options() -> AcmeOptions {
        AcmeOptions {
            directory: "/nowhere".into(),
            names: names(&["a.example"]),
            url: "https://authority.example".to_owned(),
            authorities: None,
            contact: None,
        }
    }

    fn identity(hosts: &[&str], valid: [i64; 2]) -> Identity {
        let mut params = CertificateParams::new(names(hosts)).unwrap();
        let [begin, end] = valid.map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap());
        (params.not_before, params.not_after) = (begin, end);
        let key = KeyPair::generate().unwrap();
        let pem = key.serialize_pem() + &params.self_signed(&key).unwrap().pem();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        options().identity(pem.as_bytes(), &provider).unwrap()
    }

    fn placeholder() -> Identity {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        options().placeholder(&provider).unwrap()
    }

    /// Guards: a certificate is replaced when a third of its life is left, and when a name is added, and not earlier. A
    /// placeholder is replaced whatever the clock says.
    #[test]
    fn certificates_are_replaced_in_time() {
        let shown = identity(&["A.example", "10.0.0.7"], [0, 90]);
        for (wanted, now, expected) in [
            (&["a.example"][..], 0, false),
            (&["a.example", "10.0.0.7"], 59, false),
            (&["a.example"], 60, true),
            (&["a.example"], 1000, true),
            (&["a.example", "b.example"], 0, true),
        ] {
            let found = is_due(&shown, &names(wanted), now);
            assert_eq!(found, expected, "{wanted:?} {now}");
        }
        for now in [0, i64::MIN, i64::MAX] {
            assert!(is_due(&placeholder(), &names(&["a.example"]), now));
        }
    }

    /// Guards: the certificate for all names that ends last is shown, whatever the clock says, and a placeholder never
    /// replaces one.
    #[test]
    fn the_better_certificate_is_shown() {
        let wanted = names(&["a.example"]);
        let [old, later, other] = [
            identity(&["a.example"], [0, 90]),
            identity(&["a.example"], [0, 91]),
            identity(&["b.example"], [0, 92]),
        ];
        for (new, shown, expected) in [
            (&later, &old, true),
            (&old, &later, false),
            (&old, &old, false),
            (&other, &old, false),
            (&old, &other, true),
            (&other, &placeholder(), true),
            (&placeholder(), &other, false),
            (&placeholder(), &placeholder(), false),
        ] {
            let found = is_better(new, shown, &wanted);
            assert_eq!(found, expected, "{new:?} {shown:?}");
        }
    }

    /// Returns the seconds at which orders begin that all fail, if the server starts again every `restart_s`.
    fn orders(restart_s: i64) -> Vec<i64> {
        let failed = AcmeError::Refused(String::new());
        let (mut kept, mut since, mut orders) = (Pause::default(), 0, Vec::new());
        for now in (0..100_000).step_by(15) {
            if now % restart_s == 0 {
                let text = serde_json::to_string(&kept).unwrap();
                (kept, since) = (serde_json::from_str(&text).unwrap(), now);
            }
            let elapsed = Duration::from_secs(u64::try_from(now - since).unwrap());
            if kept.left(elapsed, now).is_zero() {
                orders.push(now);
                let failures = kept.failures + 1;
                let length = pause(&failed, true, failures, Duration::ZERO);
                (kept, since) = (Pause::new(failures, length, now), now);
            }
        }
        orders
    }

    /// Guards: failures stay within the limits of the authority, also over restarts, and pauses end.
    #[test]
    fn failures_are_rare() {
        for restart_s in [15, 60, 600, 3600, i64::MAX] {
            let orders = orders(restart_s);
            assert!(orders.len() > 10, "{orders:?}");
            for hour in orders.windows(5) {
                assert!(hour[4] - hour[0] > 3600, "{restart_s}: {hour:?}");
            }
        }
        let failed = AcmeError::Refused(String::new());
        assert_eq!(pause(&failed, true, u32::MAX, Duration::ZERO), PAUSE_MAX);
        let asked = Duration::from_hours(3);
        assert_eq!(pause(&failed, true, 1, asked), asked);
        assert_eq!(pause(&failed, true, 1, Duration::MAX), RETRY_AFTER_MAX);
        assert_eq!(pause_after([0, 90]), ISSUED_PAUSE_MIN);
        assert_eq!(pause_after([0, 9000]), Duration::from_mins(50));
        assert_eq!(pause_after([0, i64::MAX]), ISSUED_PAUSE);
        let unreachable = AcmeError::Unreachable(String::new());
        for (error, has_ordered, expected) in [
            (&unreachable, false, UNREACHABLE_PAUSE),
            (&unreachable, true, ORDER_PAUSE),
            (&AcmeError::Issued(String::new()), true, ISSUED_PAUSE),
        ] {
            assert_eq!(pause(error, has_ordered, 1, Duration::ZERO), expected);
        }
        assert!(is_counted(&failed, Duration::ZERO));
        assert!(!is_counted(&unreachable, Duration::ZERO) && is_counted(&unreachable, asked));
    }

    /// Guards: a pause ends by the clock or after its length, so that neither a clock that was ahead nor a file with
    /// wrong numbers stops the attempts for long.
    #[test]
    fn pauses_end_when_the_clock_changes() {
        let s = Duration::from_secs;
        let pause = Pause::new(1, s(900), 10_000);
        for (elapsed_s, now, expected_s) in [
            (0, 10_000, 900),
            // After a restart.
            (0, 10_300, 600),
            (300, 10_600, 300),
            (0, 11_000, 0),
            // The clock was set back.
            (0, -1_000_000, 900),
            (900, -1_000_000, 0),
            // The clock was set forward.
            (0, 1_000_000, 0),
        ] {
            let left = pause.left(s(elapsed_s), now);
            assert_eq!(left, s(expected_s), "{elapsed_s} {now}");
        }
        let wrong = Pause::new(u32::MAX, Duration::MAX, i64::MAX);
        assert_eq!(wrong.left(Duration::ZERO, i64::MIN), RETRY_AFTER_MAX);
    }
}
