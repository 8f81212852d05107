//! Accepts connections, and drains them on shutdown.
//!
//! Owns: [`Listener`].
//! Refuses: choosing which connection gets a slot and which is evicted, which `slots` does.
//!
//! Invariant: a connection that waits for a slot does not keep later ones from being accepted. At most one connection
//! beyond the slots and the waiting queue is open.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::connection_limits::ConnectionLimits;
use super::front_end::FrontEnd;
use super::slots::{Decision, Slots, WaitingQueue};
use crate::tls::ServerTls;

/// Connections that the kernel queues until they are accepted. Beyond that it drops a SYN, which the client repeats
/// after 1 s, 2 s, 4 s and so on.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed, for example because there were no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Interval of checks for connections to evict, while others wait for a slot.
const EVICTION_PAUSE: Duration = Duration::from_millis(50);

/// Binds a listener to `address`.
///
/// # Panics
/// Outside of a runtime.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Without it, bind fails after a restart until the kernel has dropped the connections of the previous run.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A bound listener and the limits on its connections.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// How handshakes are answered, if connections are encrypted.
    pub(crate) tls: Option<ServerTls>,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) connections_max: usize,
    pub(crate) drain: Duration,
}

impl Listener {
    /// Accepts until `shutdown`, then waits for at most `drain`.
    pub(crate) async fn serve(self, front_end: impl FrontEnd, shutdown: impl Future<Output = ()>) {
        let clock = self.limits.clock.clone();
        let draining = CancellationToken::new();
        let slots = Slots::new(self.connections_max, &clock);
        let mut queue = WaitingQueue::new(self.connections_max);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            while let Some(decision) = slots.decide(&mut queue) {
                match decision {
                    Decision::Serve(stream, slot) => {
                        set_nodelay(&stream);
                        let (service, limits) = (front_end.service(), Arc::clone(&self.limits));
                        let draining = draining.clone();
                        match &self.tls {
                            None => connections.spawn(connection::serve(
                                stream, None, slot, service, limits, draining,
                            )),
                            Some(tls) => connections.spawn(connection::serve_tls(
                                stream,
                                tls.clone(),
                                slot,
                                service,
                                limits,
                                draining,
                            )),
                        };
                    }
                    Decision::Close(stream) => {
                        tracing::debug!("a connection was closed: too many wait for a slot");
                        drop(stream);
                    }
                }
            }
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = self.socket.accept(), if queue.has_room() => match accepted {
                    Ok((stream, peer)) => slots.enqueue(&mut queue, peer.ip(), stream),
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = tokio::time::sleep(EVICTION_PAUSE), if !queue.is_empty() => {}
            }
        }
        drop(queue);
        drop(self.socket);
        draining.cancel();
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
        tracing::debug!(%error, "TCP_NODELAY could not be set; small answers may be delayed");
    }
}
