//! Limits on the connections of a listener.
//!
//! Owns: [`ConnectionLimits`], and the settings derived from them for hyper.
//! Refuses: enforcing those that hyper does not enforce; `connection`, `watched_stream` and `request_body` do.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};

use super::frames::PAYLOAD_BYTES_MAX;
use super::head_timer::HeadTimer;
use super::http2_streams::StreamExecutor;
use super::receive_buffers::RECEIVE_BYTES;
use super::request_memory;
use super::shared_budget::{BudgetShare, SharedBudget};
use super::slots::Slot;
use super::unsent;
use crate::clock::RunningClock;

/// Largest head of an HTTP/1.1 request; a larger one is answered 431.
const H1_HEAD_BYTES: usize = 64 << 10;
/// Largest body frame that hyper returns on HTTP/1.1, which is the unit of copying on a push. `watched_stream` reads
/// less while memory is short.
const H1_BUFFER_BYTES: usize = 512 << 10;
const H2_SEND_BUFFER_BYTES: usize = 256 << 10;
/// Windows of an HTTP/2 connection while receive memory is short: the protocol's default.
const H2_SMALL_WINDOW_BYTES: u32 = 65_535;
/// Interval of pings; unanswered ones show that the peer is gone.
const H2_PING_EVERY: Duration = Duration::from_secs(30);
const H2_PONG_WITHIN: Duration = Duration::from_secs(20);

/// Limits of one HTTP/2 connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// Most requests at a time.
    pub streams: u32,
    /// Bytes that a client may send in one request before they are read.
    pub stream_window_bytes: u32,
    /// Bytes that a client may send in all requests of a connection before they are read.
    pub connection_window_bytes: u32,
    /// Largest head of a request, names and values.
    pub header_bytes: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            streams: 128,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 4 << 20,
            // 1024 byte ranges take 23 KB, and hyper's own default is 16 KiB.
            header_bytes: 64 << 10,
        }
    }
}

/// The limits on each connection of a listener, and the budgets that its connections share.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    http1: http1::Builder,
    http2: http2::Builder<StreamExecutor>,
    windows: Http2Options,
    pub(super) header_timeout: Duration,
    pub(super) unread_timeout: Duration,
    pub(super) clock: RunningClock,
    /// Budget for the large receive buffers of connections.
    pub(super) receive: Arc<SharedBudget>,
    /// Budget for requests beyond what each connection may always hold.
    pub(super) requests: Arc<SharedBudget>,
    /// Budget for unsent bytes in the kernel, for fast clients.
    pub(super) unsent: Arc<SharedBudget>,
}

impl ConnectionLimits {
    pub(crate) fn new(
        header_timeout: Duration,
        unread_timeout: Duration,
        windows: &Http2Options,
        clock: &RunningClock,
    ) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .header_read_timeout(header_timeout)
            // A client may end its half of the connection after its request, and then wait for the answer.
            .half_close(true)
            .max_header_size(H1_HEAD_BYTES)
            .max_buf_size(H1_BUFFER_BYTES);
        let mut http2 = http2::Builder::new(StreamExecutor);
        http2
            .timer(clock.clone())
            .max_frame_size(PAYLOAD_BYTES_MAX)
            .max_send_buf_size(H2_SEND_BUFFER_BYTES)
            .max_concurrent_streams(windows.streams)
            .max_header_list_size(windows.header_bytes)
            .keep_alive_interval(H2_PING_EVERY)
            .keep_alive_timeout(H2_PONG_WITHIN);
        Self {
            http1,
            http2,
            windows: windows.clone(),
            clock: clock.clone(),
            header_timeout,
            unread_timeout,
            receive: SharedBudget::new(RECEIVE_BYTES),
            requests: SharedBudget::new(request_memory::SHARED_BYTES),
            unsent: SharedBudget::new(unsent::SHARED_BYTES),
        }
    }

    /// Configures HTTP/1.1 for one connection.
    pub(super) fn http1(&self) -> http1::Builder {
        let mut builder = self.http1.clone();
        builder.timer(HeadTimer::new(&self.clock));
        builder
    }

    /// Reserves memory for large windows of an HTTP/2 connection. Returns `None` if there is none.
    pub(super) fn take_large_windows(&self, slot: &Slot) -> Option<BudgetShare> {
        let bytes = usize::try_from(self.windows.connection_window_bytes).ok()?;
        self.receive.take(slot.peer(), bytes)
    }

    /// Configures HTTP/2, with large windows if there is memory for them.
    pub(super) fn http2(&self, large: Option<&BudgetShare>) -> http2::Builder<StreamExecutor> {
        let window = |bytes: u32| match large {
            Some(_) => bytes,
            None => bytes.min(H2_SMALL_WINDOW_BYTES),
        };
        let mut builder = self.http2.clone();
        builder
            .initial_stream_window_size(window(self.windows.stream_window_bytes))
            .initial_connection_window_size(window(self.windows.connection_window_bytes));
        builder
    }
}
