//! Replaces the certificate of a listener while it serves.
//!
//! Owns: the thread that looks at the source, and the log of what came of it. The files are read and compared, not
//! watched: notifications do not exist on every file system, and miss a folder that a link replaces.
//!
//! It is a thread of its own, started with the server, because it waits for a disk, and a limit on threads that is
//! reached later must not end it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::server::ServerTls;

/// Interval of looks whether the listener still exists.
const LOOK: Duration = Duration::from_secs(1);

impl ServerTls {
    /// Starts the thread that shows what the source has, from time to time, as long as `guard` exists. What cannot be
    /// used is logged once, and the last good certificate stays.
    pub(crate) fn keep_current(&self, guard: &Arc<()>) -> io::Result<()> {
        let (this, guard) = (self.clone(), Arc::downgrade(guard));
        let thread = std::thread::Builder::new().name("tonnage-tls".to_owned());
        let keeping = move || {
            let (mut last, mut logged) = (Instant::now(), None::<String>);
            while guard.strong_count() > 0 {
                std::thread::sleep(LOOK);
                if last.elapsed() >= this.source().interval() {
                    // A panic is reported by the panic hook, and the next look is another attempt.
                    let look = AssertUnwindSafe(|| this.look(logged.as_deref()));
                    logged = catch_unwind(look).unwrap_or_default();
                    last = Instant::now();
                }
            }
        };
        thread.spawn(keeping).map(drop)
    }

    /// Looks at the source once. Returns why it cannot be used.
    fn look(&self, logged: Option<&str>) -> Option<String> {
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
}
