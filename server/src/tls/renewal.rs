//! Replaces the certificate of a listener while it serves.
//!
//! Owns: when the source is looked at, and the log of what came of it. The files are read and compared, not watched:
//! notifications do not exist on every file system, and miss a folder that a link replaces.

use std::future::Future;

use super::server::ServerTls;

impl ServerTls {
    /// Shows what the source has, from time to time, forever. What cannot be used is logged once, and the last good
    /// certificate stays.
    pub(crate) async fn keep_current(&self) -> ! {
        let mut logged = None;
        loop {
            tokio::time::sleep(self.source().interval()).await;
            let this = self.clone();
            let renewed = off_worker(move || this.renew().map_err(|error| error.to_string())).await;
            match renewed {
                Some(Ok(true)) => {
                    let expires_unix_s = self.expires_unix_s();
                    tracing::info!(expires_unix_s, "new connections get another certificate");
                    logged = None;
                }
                Some(Ok(false)) => logged = None,
                Some(Err(why)) if logged.as_ref() != Some(&why) => {
                    tracing::error!(
                        why,
                        "the certificate could not be replaced; the last one stays in use"
                    );
                    logged = Some(why);
                }
                Some(Err(_)) | None => {}
            }
        }
    }
}

/// Runs what may wait for a disk. Returns `None` if it panics, which the panic hook reports.
fn off_worker<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Option<T>> {
    let task = tokio::task::spawn_blocking(work);
    async { task.await.ok() }
}
