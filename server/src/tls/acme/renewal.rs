//! Fetches a certificate when it is time.
//!
//! Owns: [`Renewal`], and the pauses between its attempts. Every attempt has a time limit and a runtime of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;

use super::super::error::TlsError;
use super::super::identity::Identity;
use super::challenge::Challenges;
use super::error::AcmeError;
use super::http::Http;
use super::{AcmeOptions, account, kept, order, schedule};

/// Time for one attempt, with all its requests and verifications.
const ATTEMPT_TIME_MAX: Duration = Duration::from_mins(10);

/// Replaces the certificate of an authority in time.
#[derive(Debug)]
pub(in crate::tls) struct Renewal {
    options: AcmeOptions,
    challenges: Arc<Challenges>,
    provider: Arc<CryptoProvider>,
    /// Before this no attempt is made.
    next: Instant,
    failures_in_a_row: u32,
}

/// What an attempt came to.
#[derive(Debug)]
pub(in crate::tls) enum Outcome {
    /// There was none: it is not time.
    Idle,
    /// There is another certificate.
    Fetched,
    /// It failed. The next one follows after this time.
    Failed(AcmeError, Duration),
}

impl Renewal {
    /// Creates it. If the last order failed shortly before this start, the first attempt has to wait. Reads a file.
    pub(in crate::tls) fn new(
        options: AcmeOptions,
        challenges: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        // A file that cannot be read cannot be written, so no order begins either.
        let last = options.last_order_unix_s().unwrap_or_default();
        let pause = schedule::first_pause(last, kept::unix_s());
        if !pause.is_zero() {
            tracing::info!(
                ?pause,
                "an order failed before this start, so the next one waits"
            );
        }
        Self {
            options,
            challenges,
            provider,
            next: Instant::now() + pause,
            failures_in_a_row: 0,
        }
    }

    /// Fetches another certificate than the one that is `shown`, if it is time. Takes minutes, and reads and writes
    /// files.
    pub(in crate::tls) fn run_if_due(&mut self, shown: &Identity) -> Outcome {
        let names = &self.options.names;
        let is_due = schedule::is_due(&shown.hosts, shown.valid_unix_s, names, kept::unix_s());
        if !is_due || Instant::now() < self.next {
            return Outcome::Idle;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        // Also if the attempt panics.
        let in_a_row = self.failures_in_a_row;
        self.put_off(schedule::pause(
            &AcmeError::Late,
            true,
            in_a_row,
            Duration::ZERO,
        ));
        let (mut asked, mut has_ordered) = (Duration::ZERO, false);
        match self.attempt(&mut asked, &mut has_ordered) {
            Ok(fetched) => {
                self.failures_in_a_row = 0;
                self.put_off(schedule::pause_after(fetched.valid_unix_s));
                Outcome::Fetched
            }
            Err(error) => {
                let pause = schedule::pause(&error, has_ordered, in_a_row, asked);
                self.put_off(pause);
                Outcome::Failed(error, pause)
            }
        }
    }

    fn put_off(&mut self, pause: Duration) {
        self.next = Instant::now() + pause;
    }

    /// Fetches a certificate and keeps it. `asked` becomes how long the authority asks to wait, and `has_ordered`
    /// whether an order has begun.
    fn attempt(&self, asked: &mut Duration, has_ordered: &mut bool) -> Result<Identity, AcmeError> {
        let options = &self.options;
        let http = Http::new(options.authorities.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .map_err(AcmeError::Runtime)?;
        let fetching = async {
            let account = account::open(options, &http).await?;
            options.record_order()?;
            *has_ordered = true;
            order::fetch(&account, &options.names, &self.challenges, &self.provider).await
        };
        let fetched = runtime.block_on(async {
            let in_time = tokio::time::timeout(ATTEMPT_TIME_MAX, fetching).await;
            in_time.unwrap_or(Err(AcmeError::Late))
        });
        // Without waiting for the resolution of a name, which has no time limit.
        runtime.shutdown_background();
        *asked = http.retry_after();
        let order::Fetched { chain, key } = fetched?;
        // From here on the authority has counted a certificate.
        let issued = |error: TlsError| AcmeError::Issued(error.to_string());
        let identity = options.keep(&chain, &key, &self.provider).map_err(issued)?;
        let [_, end] = identity.valid_unix_s;
        let is_usable = !schedule::is_due(
            &identity.hosts,
            identity.valid_unix_s,
            &options.names,
            kept::unix_s(),
        );
        if !is_usable {
            let hosts = identity.hosts.join(", ");
            let why = format!("it is for {hosts} and ends at {end}; check the clock");
            return Err(AcmeError::Issued(why));
        }
        if let Err(error) = options.record_end() {
            tracing::warn!(%error, "a restart will wait before the next order");
        }
        Ok(identity)
    }
}
