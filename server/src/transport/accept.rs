//! Accepting connections, and draining them at the end.
//!
//! Owns: [`Listening`]. Refuses: choosing the connections that end when all places are taken, and the one that has the next place,
//! which `slots` does.
//!
//! Invariant: a connection that waits for a place does not keep those behind it from being accepted; beyond the places and the line of
//! those that wait, at most one is.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection;
use super::connection_limits::ConnectionLimits;
use super::front_end::FrontEnd;
use super::slots::{Line, Next, Places};

/// Connections that wait in the kernel until they are accepted. Where there are more, a client has no answer to its SYN and sends it again
/// after 1 s, 2 s, 4 s and so on.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// While connections wait for a place it is looked at so often whether others may be told to leave.
const PLACE_PAUSE: Duration = Duration::from_millis(50);

/// Takes the address of a listener. Panics outside of a runtime.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart does not wait for the connections of the run before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listener, and how its connections are treated.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) connections_max: usize,
    pub(crate) drain: Duration,
}

impl Listening {
    /// Accepts until `shutdown`, then waits for at most `drain`.
    pub(crate) async fn serve(self, front_end: impl FrontEnd, shutdown: impl Future<Output = ()>) {
        let clock = self.limits.clock.clone();
        let draining = watch::Sender::new(false);
        let places = Places::new(self.connections_max, &clock);
        let mut line = Line::new(self.connections_max);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            while let Some(next) = places.next(&mut line) {
                match next {
                    Next::Serve(stream, place) => {
                        set_nodelay(&stream);
                        connections.spawn(connection::drive(
                            stream,
                            place,
                            front_end.service(),
                            Arc::clone(&self.limits),
                            draining.subscribe(),
                        ));
                    }
                    Next::Close(stream) => {
                        tracing::debug!("a connection was closed: too many wait for a place");
                        drop(stream);
                    }
                }
            }
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = self.listener.accept(), if line.has_room() => match accepted {
                    Ok((stream, peer)) => places.arrive(&mut line, peer.ip(), stream),
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = tokio::time::sleep(PLACE_PAUSE), if !line.is_empty() => {}
            }
        }
        drop(line);
        drop(self.listener);
        draining.send_replace(true);
        let ended = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if clock.timeout(self.drain, ended).await.is_err() {
            tracing::warn!(
                left = connections.len(),
                "closing connections that did not end in time"
            );
        }
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused; small answers may be late");
    }
}
