//! Fetches a certificate when it is time.
//!
//! Owns: [`Renewal`], and the pauses between its attempts. Every attempt has a time limit and a runtime of its own.
//!
//! Invariant: the authority counts a certificate that it has issued, so one that can be used is returned whatever else
//! fails: the file that cannot be written is tried again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;

use super::super::error::TlsError;
use super::super::identity::Identity;
use super::challenge::Challenges;
use super::error::AcmeError;
use super::http::Http;
use super::order::Fetched;
use super::schedule::Pause;
use super::{AcmeOptions, account, files, order, schedule};

/// Time for one attempt, with all its requests and verifications.
const ATTEMPT_TIME_MAX: Duration = Duration::from_mins(10);
/// Interval of attempts to write a certificate to its file.
const WRITE_AGAIN: Duration = Duration::from_secs(30);

/// Replaces the certificate of an authority in time.
pub(in crate::tls) struct Renewal {
    options: AcmeOptions,
    challenges: Arc<Challenges>,
    provider: Arc<CryptoProvider>,
    pause: Pause,
    /// When the pause began, or was read.
    since: Instant,
    /// A certificate with its key that is not in its file yet, and when that was last tried.
    unwritten: Option<(String, Instant)>,
}

/// The result of an attempt.
#[derive(Debug)]
pub(in crate::tls) struct Attempt {
    /// The certificate that was issued, also if it is not what was ordered.
    pub(in crate::tls) issued: Option<Identity>,
    /// Why there is none that can be used, and the pause before the next attempt.
    pub(in crate::tls) failure: Option<(AcmeError, Duration)>,
}

/// How far an attempt came.
#[derive(Debug, Default)]
struct Progress {
    /// Whether an order has begun.
    has_ordered: bool,
    /// Whether the pause in the file is that of this attempt.
    has_written: bool,
    /// How long the authority asks to wait.
    retry_after: Duration,
}

impl Renewal {
    /// Creates it, with the pause that held before this start. Reads a file.
    pub(in crate::tls) fn new(
        options: AcmeOptions,
        challenges: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        let now = files::unix_s();
        let pause = options.pause().unwrap_or_else(|error| {
            tracing::warn!(%error, "the pause before the next order is not known, so it is a short one");
            Pause::unknown(now)
        });
        let left = pause.left(Duration::ZERO, now);
        if !left.is_zero() {
            tracing::info!(
                pause = ?left,
                failures = pause.failures,
                "an order failed before this start, so the next one waits"
            );
        }
        Self {
            options,
            challenges,
            provider,
            pause,
            since: Instant::now(),
            unwritten: None,
        }
    }

    /// Fetches another certificate than the one that is `shown`, if it is time; `None` if it is not. Takes minutes, and
    /// reads and writes files.
    pub(in crate::tls) fn run_if_due(&mut self, shown: &Identity) -> Option<Attempt> {
        self.write_again();
        let now = files::unix_s();
        let is_due = schedule::is_due(shown, &self.options.names, now)
            && self.pause.left(self.since.elapsed(), now).is_zero();
        is_due.then(|| self.run(now))
    }

    fn run(&mut self, now: i64) -> Attempt {
        let failures = self.pause.failures.saturating_add(1);
        // What holds if the program stops during the attempt.
        let length = schedule::pause(&AcmeError::Late, true, failures, Duration::ZERO);
        let assumed = Pause::new(failures, length, now);
        let mut progress = Progress::default();
        let attempt = AssertUnwindSafe(|| {
            let Fetched { chain, key } = self.fetch(&assumed, &mut progress)?;
            let pem = format!("{key}\n{chain}");
            let identity = self.options.identity(pem.as_bytes(), &self.provider);
            let issued = |error: TlsError| AcmeError::Issued(error.to_string());
            Ok((pem, identity.map_err(issued)?))
        });
        match catch_unwind(attempt).unwrap_or(Err(AcmeError::Panic)) {
            Ok((pem, identity)) => self.take(pem, identity),
            Err(error) => {
                let must_hold =
                    progress.has_written || schedule::is_counted(&error, progress.retry_after);
                let (has_ordered, retry_after) = (progress.has_ordered, progress.retry_after);
                let length = schedule::pause(&error, has_ordered, failures, retry_after);
                self.wait(Pause::new(failures, length, files::unix_s()), must_hold);
                Attempt {
                    issued: None,
                    failure: Some((error, length)),
                }
            }
        }
    }

    /// Takes a certificate that was issued. It is of use even if its file cannot be written.
    fn take(&mut self, pem: String, identity: Identity) -> Attempt {
        let now = files::unix_s();
        let is_written = self.write(pem);
        let failure = schedule::is_due(&identity, &self.options.names, now).then(|| {
            let (hosts, [_, end]) = (identity.hosts.join(", "), identity.valid_unix_s);
            let why = format!("it is for {hosts} and ends at {end}; check the clock");
            let error = AcmeError::Issued(why);
            let length = schedule::pause(&error, true, 1, Duration::ZERO);
            (error, length)
        });
        if let Some((_, length)) = failure {
            let failures = self.pause.failures.saturating_add(1);
            self.wait(Pause::new(failures, length, now), true);
        } else {
            let length = schedule::pause_after(identity.valid_unix_s);
            let pause = Pause::new(0, length, now);
            self.wait(pause, !is_written);
            if is_written {
                self.end_pause_of_restarts();
            }
        }
        Attempt {
            issued: Some(identity),
            failure,
        }
    }

    /// Makes no attempt for a while, also after a restart if the pause `must_hold`.
    fn wait(&mut self, pause: Pause, must_hold: bool) {
        (self.pause, self.since) = (pause, Instant::now());
        if must_hold && let Err(error) = self.options.write_pause(&pause) {
            tracing::warn!(%error, "the pause before the next order does not hold after a restart");
        }
    }

    /// Lets a restart order at once, as for another name: what is in the file says when that is due.
    fn end_pause_of_restarts(&self) {
        if let Err(error) = self.options.write_pause(&Pause::default()) {
            tracing::warn!(%error, "a restart will wait before the next order");
        }
    }

    /// Writes a certificate with its key to its file. Returns whether that succeeded; else it is tried again.
    fn write(&mut self, pem: String) -> bool {
        let written = self.options.write_certificate(&pem);
        if let Err(error) = &written {
            tracing::warn!(%error, "a certificate was fetched and is not in its file yet; do not restart before it is");
        }
        self.unwritten = written.is_err().then(|| (pem, Instant::now()));
        self.unwritten.is_none()
    }

    fn write_again(&mut self) {
        let is_time = |(_, last): &mut (String, Instant)| last.elapsed() >= WRITE_AGAIN;
        if let Some((pem, _)) = self.unwritten.take_if(is_time)
            && self.write(pem)
        {
            tracing::info!("the certificate is in its file now");
            if self.pause.failures == 0 {
                self.end_pause_of_restarts();
            }
        }
    }

    /// Fetches a certificate. Before anything is made at the authority, the pause that is `assumed` to follow is
    /// written, which proves that the folder takes files.
    fn fetch(&self, assumed: &Pause, progress: &mut Progress) -> Result<Fetched, AcmeError> {
        let options = &self.options;
        let http = Http::new(options.authorities.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .map_err(AcmeError::Runtime)?;
        let fetching = async {
            let found = account::open(options, &http).await?;
            options.write_pause(assumed)?;
            progress.has_written = true;
            let account = match found {
                Some(account) => account,
                None => account::make(options, &http).await?,
            };
            progress.has_ordered = true;
            let order = |account| async move {
                order::fetch(&account, &options.names, &self.challenges, &self.provider).await
            };
            match order(account).await {
                Err(AcmeError::UnknownAccount) => {
                    tracing::warn!("the authority does not know the account; another one is made");
                    order(account::make(options, &http).await?).await
                }
                fetched => fetched,
            }
        };
        let fetched = runtime.block_on(async {
            let in_time = tokio::time::timeout(ATTEMPT_TIME_MAX, fetching).await;
            in_time.unwrap_or(Err(AcmeError::Late))
        });
        // Without waiting for the resolution of a name, which has no time limit.
        runtime.shutdown_background();
        progress.retry_after = http.retry_after();
        fetched
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::{Duration as Days, OffsetDateTime};

    use super::*;

    fn renewal(directory: &std::path::Path) -> Renewal {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let authorities = directory.join("ca.pem");
        std::fs::write(&authorities, params.self_signed(&key).unwrap().pem()).unwrap();
        let options = AcmeOptions {
            directory: directory.join("acme"),
            names: vec!["a.example".to_owned()],
            // The library panics at this address.
            url: "https://[".to_owned(),
            authorities: Some(authorities),
            contact: None,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Renewal::new(options, Arc::default(), provider)
    }

    fn placeholder(renewal: &Renewal) -> Identity {
        renewal.options.placeholder(&renewal.provider).unwrap()
    }

    /// Returns a certificate as an authority issues it, that ends after some days.
    fn issued(renewal: &Renewal, days: i64) -> (String, Identity) {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Days::days(90);
        params.not_after = now + Days::days(days);
        let key = KeyPair::generate().unwrap();
        let pem = key.serialize_pem() + &params.self_signed(&key).unwrap().pem();
        let identity = renewal.options.identity(pem.as_bytes(), &renewal.provider);
        (pem, identity.unwrap())
    }

    /// Guards: a panic is a failure like others, with a pause that holds after a restart. So does the pause after a
    /// certificate that cannot be used.
    #[test]
    fn pauses_hold_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = renewal(directory.path());
        let shown = placeholder(&first);
        let attempt = first.run_if_due(&shown).unwrap();
        let (error, pause) = attempt.failure.unwrap();
        assert!(matches!(error, AcmeError::Panic), "{error}");
        assert!(attempt.issued.is_none() && !pause.is_zero());
        for mut renewal in [first, renewal(directory.path())] {
            assert!(renewal.run_if_due(&shown).is_none());
            assert_eq!(renewal.pause.failures, 1);
        }

        let mut second = renewal(directory.path());
        let (pem, identity) = issued(&second, -1);
        let attempt = second.take(pem, identity);
        let (error, _) = attempt.failure.unwrap();
        assert!(error.to_string().contains("check the clock"), "{error}");
        let restarted = renewal(directory.path());
        let left = restarted.pause.left(Duration::ZERO, files::unix_s());
        assert!(left > Duration::from_hours(33), "{left:?}");
        assert_eq!(restarted.pause.failures, 2);
        // It is shown nevertheless, because the clock may be wrong.
        let identity = attempt.issued.unwrap();
        assert!(schedule::is_better(
            &identity,
            &shown,
            &restarted.options.names
        ));
    }

    /// Guards: a certificate that was issued is of use although its file cannot be written, which is tried again. Only
    /// then does a restart wait before the next order.
    #[test]
    fn issued_certificates_are_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let mut renewal = renewal(directory.path());
        let path = renewal.options.certificate_path();
        std::fs::create_dir_all(path.join("in-the-way")).unwrap();
        let (pem, identity) = issued(&renewal, 90);
        let attempt = renewal.take(pem.clone(), identity);
        assert!(attempt.failure.is_none() && attempt.issued.is_some());
        let pause = renewal.options.pause().unwrap();
        assert!(!pause.left(Duration::ZERO, files::unix_s()).is_zero());

        std::fs::remove_dir_all(&path).unwrap();
        let (_, last) = renewal.unwritten.as_mut().unwrap();
        *last = last.checked_sub(WRITE_AGAIN).unwrap();
        assert!(renewal.run_if_due(&attempt.issued.unwrap()).is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), pem);
        let (pem, identity) = issued(&renewal, 91);
        renewal.take(pem, identity);
        assert_eq!(renewal.options.pause().unwrap(), Pause::default());
    }
}
