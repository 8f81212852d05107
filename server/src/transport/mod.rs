//! HTTP connections, independent of what is served: slots, limits, timeouts, bodies, and the end of a connection.
//!
//! Owns: everything between a listener and one request. A listener gets its front end as a value ([`front_end`]).
//! Refuses: paths, statuses and content, which belong to front ends.
//!
//! Invariant: every shared resource is bounded, and an inactive client loses its part to those that wait.

pub(crate) mod accept;
mod active_requests;
mod close;
mod connection;
pub(crate) mod connection_limits;
mod cork;
mod frames;
pub(crate) mod front_end;
pub(crate) mod head_check;
mod head_timer;
pub(crate) mod headers;
pub(crate) mod host;
mod http2_streams;
mod linger;
mod mapped_answers;
mod protocol;
pub(crate) mod query;
mod receive_buffers;
pub(crate) mod request_body;
pub(crate) mod request_id;
mod request_memory;
mod shared_budget;
mod slots;
mod stream;
mod supervision;
mod tracked_body;
pub(crate) mod unread_body;
mod unsent;
mod watched_stream;

pub use self::slots::connections_waiting_max;
