//! Memory for what clients send faster than it is taken in.
//!
//! Owns: its bound and the sizes of reads. hyper keeps a buffer for what it reads on each connection of HTTP/1.1, which never shrinks,
//! and the unread frames of HTTP/2. For a fast push both have to be large; for many slow ones they must be small. So a connection begins
//! with small ones, and a bounded number of them have large ones, until they end. Those that are idle end for others that want some
//! (`slots`): hyper cannot make the windows of a connection smaller.
//! Refuses: waiting; a connection that gets no large ones continues with the small ones, and is slower.

/// For the large buffers of all connections of a listener together.
pub(super) const RECEIVE_BYTES: usize = 64 << 20;
/// What one read may take of a connection's first bytes, and of all of them while memory is short. Its buffer is twice as large.
pub(super) const NARROW_READ_BYTES: usize = 16 << 10;
/// What one read may take otherwise.
pub(super) const WIDE_READ_BYTES: usize = 512 << 10;
