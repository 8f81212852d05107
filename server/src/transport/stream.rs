//! What a connection's bytes go over.
//!
//! Owns: [`Stream`]. A stream over another one, as TLS, passes on to it what is asked of the socket.
//! Refuses: what concerns a socket before it is served, which is `accept`'s.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes both ways, and what the transport asks of the socket below them.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The address of the client's end. It fails where the client has gone.
    fn peer(&self) -> io::Result<SocketAddr>;

    /// Sets how much of what was written the kernel may keep that is not on its way yet, in bytes
    /// (`TCP_NOTSENT_LOWAT`).
    fn set_unsent_max(&self, bytes: u32) -> io::Result<()>;

    /// Makes the kernel forget what the client did not take, once the stream drops, and reset the connection
    /// (`SO_LINGER` of zero).
    fn set_reset_on_drop(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn peer(&self) -> io::Result<SocketAddr> {
        self.peer_addr()
    }

    fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        SockRef::from(self).set_tcp_notsent_lowat(bytes)
    }

    fn set_reset_on_drop(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// A pipe in memory has no socket below.
    impl Stream for DuplexStream {
        fn peer(&self) -> io::Result<SocketAddr> {
            Ok(([10, 0, 0, 1], 1).into())
        }

        fn set_unsent_max(&self, _: u32) -> io::Result<()> {
            Ok(())
        }

        fn set_reset_on_drop(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
