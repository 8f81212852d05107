//! Replaces the certificate of a listener, and the authorities of its clients, while it serves.
//!
//! Owns: the threads that look at their sources, and the log of the results. The files are read and compared, not
//! watched: notifications do not exist on every file system, and miss a folder that a link replaces.
//!
//! Fetching a certificate from an authority takes minutes at most, so it has a thread of its own.
//!
//! The threads are started with the server (`repeated`).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::acme;
use super::error::TlsError;
use super::server::ServerTls;
use super::source::TlsSource;
use crate::repeated::every_second;

/// Interval of looks whether a certificate is to be fetched.
const LOOK: Duration = Duration::from_secs(1);
/// Interval of looks at the authorities of clients.
const LOOK_AT_AUTHORITIES: Duration = Duration::from_secs(5);

/// Runs `look` every second, as long as `guard` exists, on a thread of its own.
fn repeat(name: &str, guard: &Arc<()>, mut look: impl FnMut() + Send + 'static) -> io::Result<()> {
    let guard = Arc::downgrade(guard);
    every_second(name, move || {
        look();
        guard.strong_count() > 0
    })
}

/// A check that is repeated, with the error that it reported last.
struct Watch {
    interval: Duration,
    last: Instant,
    /// The error that was logged last; `None` after a success.
    logged: Option<String>,
}

impl ServerTls {
    /// Starts the threads that show the newest certificate of the source, and fetch it, as long as `guard` exists. What
    /// cannot be used is logged once, and the last good certificate stays. The same holds for the authorities of
    /// clients.
    pub(crate) fn keep_current(&self, guard: &Arc<()>) -> io::Result<()> {
        let this = self.clone();
        let mut certificate = Watch::new(this.source().interval());
        let mut authorities = Watch::new(LOOK_AT_AUTHORITIES);
        repeat("tonnage-tls", guard, move || {
            certificate.look(|logged| this.look_at_certificate(logged));
            authorities.look(|logged| this.look_at_authorities(logged));
        })?;
        let TlsSource::Acme(_) = self.source else {
            return Ok(());
        };
        let (this, mut fetching) = (self.clone(), None);
        let mut attempts = Watch::new(LOOK);
        repeat("tonnage-acme", guard, move || {
            // Not before, because it reads a file.
            let fetching = fetching.get_or_insert_with(|| this.fetching());
            attempts.look(|logged| this.fetch_if_due(fetching.as_mut()?, logged));
        })
    }

    /// Looks at the source once. Returns why it cannot be used.
    fn look_at_certificate(&self, logged: Option<&str>) -> Option<String> {
        let renewed = self.renew();
        if matches!(renewed, Ok(true)) {
            self.log_shown();
        }
        let what = "the certificate could not be replaced; the last one stays in use";
        failure(renewed, logged, what)
    }

    fn log_shown(&self) {
        let expires_unix_s = self.expires_unix_s();
        tracing::info!(expires_unix_s, "new connections get another certificate");
    }

    /// Fetches a certificate from the authority if it is time. Returns why that failed, until it succeeds.
    fn fetch_if_due(&self, fetching: &mut acme::Renewal, logged: Option<&str>) -> Option<String> {
        let Some(attempt) = fetching.run_if_due(&self.shown()) else {
            return logged.map(str::to_owned);
        };
        if attempt.issued.is_some_and(|issued| self.show(issued)) {
            self.log_shown();
        }
        let (error, pause) = attempt.failure?;
        self.failures.fetch_add(1, Ordering::Relaxed);
        let why = error.to_string();
        if logged == Some(&*why) {
            tracing::info!(why, ?pause, "no certificate could be fetched again");
        } else {
            tracing::error!(
                why,
                next_attempt_after = ?pause,
                "no certificate could be fetched; the one in use stays"
            );
        }
        Some(why)
    }

    /// Looks at the authorities of clients once. Returns why they cannot be used.
    fn look_at_authorities(&self, logged: Option<&str>) -> Option<String> {
        let renewed = self.renew_authorities();
        if matches!(renewed, Ok(true)) {
            tracing::info!("certificates of clients are verified with other authorities");
        }
        let what = "the authorities of clients could not be replaced; the last ones stay in use";
        failure(renewed, logged, what)
    }
}

/// Returns why something was not replaced, and logs it with `what`, unless that was logged last.
fn failure(renewed: Result<bool, TlsError>, logged: Option<&str>, what: &str) -> Option<String> {
    let why = renewed.err()?.to_string();
    if logged != Some(&why) {
        tracing::error!(why, "{what}");
    }
    Some(why)
}

impl Watch {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Instant::now(),
            logged: None,
        }
    }

    /// Looks, if it is time. `look` gets the error that was logged last and returns the current one.
    fn look(&mut self, look: impl FnOnce(Option<&str>) -> Option<String>) {
        if self.last.elapsed() < self.interval {
            return;
        }
        // A panic is reported by the panic hook, and the next look is another attempt.
        let looked = catch_unwind(AssertUnwindSafe(|| look(self.logged.as_deref())));
        self.logged = looked.unwrap_or_default();
        self.last = Instant::now();
    }
}
