//! How the connections of a listener are treated.
//!
//! Owns: [`ConnectionLimits`], and what of them hyper is told.
//! Refuses: carrying them out where hyper does not, which `connection`, `watched_stream` and `request_body` do.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};

use super::frames::PAYLOAD_BYTES_MAX;
use super::http2_streams::StreamTasks;
use super::receive_buffers::RECEIVE_BYTES;
use super::request_memory;
use super::shared_budget::{Share, SharedBytes};
use super::slots::Taken;
use super::unsent;
use crate::clock::RunningClock;

/// Largest head of an HTTP/1.1 request; a larger one is answered 431.
const H1_HEAD_BYTES: usize = 64 << 10;
/// Largest body frame that HTTP/1.1 hands up, and with it the unit of copying on a push. `watched_stream` reads less where memory is short.
const H1_BUFFER_BYTES: usize = 512 << 10;
const H2_SEND_BUFFER_BYTES: usize = 256 << 10;
/// Windows of a connection of HTTP/2 while memory for what was received is short: the protocol's own.
const H2_NARROW_BYTES: u32 = 65_535;
/// A peer that is gone without a word is noticed by an unanswered ping.
const H2_PING_EVERY: Duration = Duration::from_secs(30);
const H2_PONG_WITHIN: Duration = Duration::from_secs(20);

/// Bounds of one HTTP/2 connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// Most requests at a time.
    pub streams: u32,
    /// What a client may send in one request before it was read.
    pub stream_window_bytes: u32,
    /// The same for all requests of a connection together.
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

/// How every connection of a listener is treated.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    pub(super) http1: http1::Builder,
    http2: http2::Builder<StreamTasks>,
    windows: Http2Options,
    pub(super) header_timeout: Duration,
    pub(super) unread_timeout: Duration,
    pub(super) clock: RunningClock,
    /// For the large receive buffers of connections.
    pub(super) receive: Arc<SharedBytes>,
    /// For requests beyond each connection's own part.
    pub(super) requests: Arc<SharedBytes>,
    /// For what the kernel keeps of answers to fast clients.
    pub(super) unsent: Arc<SharedBytes>,
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
            .timer(clock.clone())
            .header_read_timeout(header_timeout)
            // A client may say with the end of its stream that its request is whole, and then wait for the answer.
            .half_close(true)
            .max_header_size(H1_HEAD_BYTES)
            .max_buf_size(H1_BUFFER_BYTES);
        let mut http2 = http2::Builder::new(StreamTasks);
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
            receive: SharedBytes::new(RECEIVE_BYTES),
            requests: SharedBytes::new(request_memory::SHARED_BYTES),
            unsent: SharedBytes::new(unsent::SHARED_BYTES),
        }
    }

    /// Memory for the large windows of a connection of HTTP/2, if there is some.
    pub(super) fn widen(&self, place: &Taken) -> Option<Share> {
        let bytes = usize::try_from(self.windows.connection_window_bytes).ok()?;
        self.receive.take(place.peer(), bytes)
    }

    /// HTTP/2 with the windows that there is memory for.
    pub(super) fn http2(&self, wide: Option<&Share>) -> http2::Builder<StreamTasks> {
        let window = |bytes: u32| match wide {
            Some(_) => bytes,
            None => bytes.min(H2_NARROW_BYTES),
        };
        let mut builder = self.http2.clone();
        builder
            .initial_stream_window_size(window(self.windows.stream_window_bytes))
            .initial_connection_window_size(window(self.windows.connection_window_bytes));
        builder
    }
}
