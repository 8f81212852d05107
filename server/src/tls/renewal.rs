//! Replaces the certificate of a listener, and the authorities of its clients, while it serves.
//!
//! Owns: the thread that looks at their sources, and the log of what came of it. The files are read and compared, not
//! watched: notifications do not exist on every file system, and miss a folder that a link replaces.
//!
//! Fetching a certificate from an authority takes minutes at most. Meanwhile the authorities of clients are not looked
//! at.
//!
//! It is a thread of its own, started with the server, because it waits for a disk, and a limit on threads that is
//! reached later must not end it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::acme;
use super::server::ServerTls;

/// Interval of looks whether the listener still exists.
const LOOK: Duration = Duration::from_secs(1);
/// Interval of looks at the authorities of clients.
const LOOK_AT_AUTHORITIES: Duration = Duration::from_secs(5);

/// Something that is looked at from time to time, and what the last look at it came to.
struct Watch {
    interval: Duration,
    last: Instant,
    /// The error that was logged last, unless it ended.
    logged: Option<String>,
}

impl ServerTls {
    /// Starts the thread that shows what the source has, from time to time, as long as `guard` exists. What cannot be
    /// used is logged once, and the last good certificate stays. The same holds for the authorities of clients.
    pub(crate) fn keep_current(&self, guard: &Arc<()>) -> io::Result<()> {
        let (this, guard) = (self.clone(), Arc::downgrade(guard));
        let thread = std::thread::Builder::new().name("tonnage-tls".to_owned());
        let keeping = move || {
            let mut fetching = this.fetching();
            let mut certificate = Watch::new(this.source().interval());
            let mut authorities = Watch::new(LOOK_AT_AUTHORITIES);
            while guard.strong_count() > 0 {
                std::thread::sleep(LOOK);
                certificate.look(|logged| match &mut fetching {
                    Some(fetching) => this.fetch_if_due(fetching, logged),
                    None => this.look_at_certificate(logged),
                });
                authorities.look(|logged| this.look_at_authorities(logged));
            }
        };
        thread.spawn(keeping).map(drop)
    }

    /// Looks at the source once. Returns why it cannot be used.
    fn look_at_certificate(&self, logged: Option<&str>) -> Option<String> {
        match self.renew() {
            Ok(true) => {
                let expires_unix_s = self.expires_unix_s();
                tracing::info!(expires_unix_s, "new connections get another certificate");
                None
            }
            Ok(false) => None,
            Err(error) => {
                let why = error.to_string();
                if logged != Some(&why) {
                    tracing::error!(
                        why,
                        "the certificate could not be replaced; the last one stays in use"
                    );
                }
                Some(why)
            }
        }
    }

    /// Fetches a certificate from the authority if it is time. Returns why that failed, until it succeeds.
    fn fetch_if_due(&self, fetching: &mut acme::Renewal, logged: Option<&str>) -> Option<String> {
        match fetching.run_if_due(&self.shown()) {
            acme::Outcome::Idle => logged.map(str::to_owned),
            acme::Outcome::Fetched => self.look_at_certificate(logged),
            acme::Outcome::Failed(error, pause) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let why = error.to_string();
                if logged == Some(&*why) {
                    tracing::info!(why, ?pause, "no certificate could be fetched again");
                } else {
                    tracing::error!(
                        why,
                        next_attempt_after = ?pause,
                        "no certificate could be fetched; the one before stays in use"
                    );
                }
                Some(why)
            }
        }
    }

    /// Looks at the authorities of clients once. Returns why they cannot be used.
    fn look_at_authorities(&self, logged: Option<&str>) -> Option<String> {
        match self.renew_authorities() {
            Ok(true) => {
                tracing::info!("certificates of clients are verified with other authorities");
                None
            }
            Ok(false) => None,
            Err(error) => {
                let why = error.to_string();
                if logged != Some(&why) {
                    tracing::error!(
                        why,
                        "the authorities of clients could not be replaced; the last ones stay in use"
                    );
                }
                Some(why)
            }
        }
    }
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
