//! Reads that may need pages from the disk.
//!
//! Functions that read rows never wait, so that the same ones serve a request on an async worker and a commit under the
//! sequencer's lock. One that needs a page from the disk fails with [`Error::NotResident`]. Its caller waits for the
//! page, without a lock, and calls again.

use crate::error::{Error, Result};
use crate::io::Env;

/// Calls `read` until all pages that it needs are in memory. `read` starts anew each time, so it must read the same
/// rows each time.
pub(crate) async fn resident<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let mut held = Vec::new();
    loop {
        match read() {
            Err(Error::NotResident(page)) => held.push(page.load().await?),
            done => return done,
        }
    }
}

/// Does the same as [`resident`] off the async workers, for reads that compute for milliseconds.
pub(crate) async fn resident_off_worker<T: Send + 'static>(
    env: &Env,
    mut read: impl FnMut() -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut held = Vec::new();
    loop {
        let job = move || {
            let done = read();
            (done, read)
        };
        let (done, back) = env.compute(job).await.ok_or(Error::Closed)?;
        read = back;
        match done {
            Err(Error::NotResident(page)) => held.push(page.load().await?),
            done => return done,
        }
    }
}
