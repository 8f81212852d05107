//! Lines on their way to standard error.
//!
//! Owns: [`Lines`], a bounded queue and the thread that writes it. Refuses: the format of a line.
//!
//! Invariants: logging never waits for the reader of standard error, which may be a stopped pager or collector of logs:
//! a request would wait with it. A line that finds the queue full is dropped. Once the reader continues, the log says
//! how many were.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written: about 1 MiB.
const LINES_MAX: usize = 4096;
/// Longest wait for the reader at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Pause before the next look for room in the queue.
const FLUSH_RETRY: Duration = Duration::from_millis(10);

/// A queue of lines. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Queued>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Queued {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the thread that writes to `target`. It calls `report` with the number of lines that were dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        target: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, queued) = sync_channel(LINES_MAX);
        let dropped = Arc::default();
        let counted = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name("tonnage-log".to_owned());
        thread.spawn(move || write(&queued, target, &counted, report))?;
        Ok(Self { queue, dropped })
    }

    /// Waits until all lines so far are written, unless nobody reads them.
    pub(super) fn flush(&self) {
        let until = Instant::now() + FLUSH_MAX;
        let (written, waits) = sync_channel(1);
        let mut flush = Queued::Flush(written);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(flush) {
            if Instant::now() >= until {
                return;
            }
            flush = back;
            std::thread::sleep(FLUSH_RETRY);
        }
        // An error says that nobody reads.
        waits.recv_timeout(FLUSH_MAX).unwrap_or_default();
    }
}

/// Writes until the last clone of the queue is dropped.
fn write(
    queued: &Receiver<Queued>,
    mut target: impl Write,
    dropped: &AtomicU64,
    report: impl Fn(u64),
) {
    for next in queued {
        match next {
            // Where standard error cannot be written, there is no other place to say so.
            Queued::Line(line) => target.write_all(&line).unwrap_or_default(),
            Queued::Flush(written) => written.try_send(()).unwrap_or_default(),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            report(lost);
        }
    }
}

/// Takes one line, which is written to it at once.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Queued::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A reader that takes a line only when told to.
    struct Slow {
        may_read: Receiver<()>,
        read: Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.may_read.recv().unwrap_or_default();
            self.read
                .send(String::from_utf8_lossy(line).into_owned())
                .unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Guards: logging continues while nobody reads. What was dropped is counted, the other lines keep their order, and
    /// a flush waits for all of them.
    #[test]
    fn a_reader_that_stops_blocks_no_line() {
        let ((go, may_read), (read, lines)) = (channel(), channel());
        let (lost, reports) = channel();
        let target = Slow { may_read, read };
        let log = Lines::start(target, move |count| lost.send(count).unwrap()).unwrap();
        let written = LINES_MAX + 100;
        for number in 0..written {
            (&log).write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        // From now on it reads everything.
        drop(go);
        assert_eq!(lines.recv().unwrap(), "0\n");
        log.flush();
        let read: Vec<_> = lines.try_iter().collect();
        let expected: Vec<_> = (1..=read.len())
            .map(|number| format!("{number}\n"))
            .collect();
        assert_eq!(read, expected);
        let lost: u64 = reports.try_iter().sum();
        assert_eq!(1 + read.len() as u64 + lost, written as u64);
        assert!(lost > 0);
    }
}
