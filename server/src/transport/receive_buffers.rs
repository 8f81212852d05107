//! Sizes of receive buffers, and the memory for large ones.
//!
//! hyper keeps a read buffer on each HTTP/1.1 connection, which never shrinks, and the unread frames of HTTP/2. A fast
//! push needs large ones; many slow pushes need small ones. So a connection begins with small buffers. A limited number
//! of connections have large ones until they end, because hyper cannot shrink the windows of a connection. Idle ones
//! are evicted for others that need large buffers (`slots`). A connection that gets none continues with small ones,
//! more slowly.

/// Budget for the large buffers of all connections of a listener together.
pub(super) const RECEIVE_BYTES: usize = 64 << 20;
/// Most bytes of one read with small buffers. hyper's buffer is twice as large.
pub(super) const SMALL_READ_BYTES: usize = 16 << 10;
/// Most bytes of one read with large buffers.
pub(super) const LARGE_READ_BYTES: usize = 512 << 10;
