//! The interface of a connection's byte stream.
//!
//! Owns: [`Stream`]. A stream over another one, such as TLS, forwards the socket operations to it.
//! Refuses: setting up a socket before it is served, which `accept` does.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Bytes in both directions, and the operations of the transport on the socket below.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Returns whether the bytes are encrypted.
    fn is_tls(&self) -> bool {
        false
    }

    /// Returns the address of the client's end. Fails if the client has disconnected.
    fn peer(&self) -> io::Result<SocketAddr>;

    /// Limits how many written bytes the kernel may keep unsent (`TCP_NOTSENT_LOWAT`).
    fn set_unsent_max(&self, bytes: u32) -> io::Result<()>;

    /// Makes the kernel hold back a segment that is not full, or send it (`TCP_CORK`).
    fn set_corked(&self, corked: bool) -> io::Result<()>;

    /// Makes the kernel reset the connection and discard unread bytes when the stream is dropped (`SO_LINGER` of zero).
    fn set_reset_on_drop(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn peer(&self) -> io::Result<SocketAddr> {
        self.peer_addr()
    }

    fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        SockRef::from(self).set_tcp_notsent_lowat(bytes)
    }

    fn set_corked(&self, corked: bool) -> io::Result<()> {
        SockRef::from(self).set_tcp_cork(corked)
    }

    fn set_reset_on_drop(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn is_tls(&self) -> bool {
        true
    }

    fn peer(&self) -> io::Result<SocketAddr> {
        self.get_ref().0.peer()
    }

    fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        self.get_ref().0.set_unsent_max(bytes)
    }

    fn set_corked(&self, corked: bool) -> io::Result<()> {
        self.get_ref().0.set_corked(corked)
    }

    fn set_reset_on_drop(&self) -> io::Result<()> {
        self.get_ref().0.set_reset_on_drop()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// A pipe in memory has no socket.
    impl Stream for DuplexStream {
        fn peer(&self) -> io::Result<SocketAddr> {
            Ok(([10, 0, 0, 1], 1).into())
        }

        fn set_unsent_max(&self, _: u32) -> io::Result<()> {
            Ok(())
        }

        fn set_corked(&self, _: bool) -> io::Result<()> {
            Ok(())
        }

        fn set_reset_on_drop(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
