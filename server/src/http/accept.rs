//! Accepting connections, and draining them at the end.
//!
//! Owns: [`Listening`]. Refuses: choosing the connections that end when all places are taken, which `places` does.
//!
//! Invariant: at most one connection beyond the places is accepted: the one that waits for the next to be free.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection;
use super::limits::ConnectionLimits;
use super::places::{Places, Taken};

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Who waits for a place looks again so often whether somebody may be told to leave.
const PLACE_PAUSE: Duration = Duration::from_millis(50);

/// A listener, and how its connections are treated.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) connections_max: usize,
    pub(super) drain: Duration,
}

impl Listening {
    /// Accepts until `shutdown`, then waits for at most `drain`.
    pub(super) async fn serve<S, B>(self, service: S, shutdown: impl Future<Output = ()>)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Unpin + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let clock = self.limits.clock.clone();
        let draining = watch::Sender::new(false);
        let places = Places::new(self.connections_max, &clock);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let (stream, peer) = tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => (stream, peer.ip()),
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let place = take(&places, peer, &mut connections, shutdown.as_mut()).await;
            let Some(place) = place else { break };
            set_nodelay(&stream);
            connections.spawn(connection::drive(
                stream,
                place,
                service.clone(),
                Arc::clone(&self.limits),
                draining.subscribe(),
            ));
        }
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

/// Waits for a place; `None` at the end of the server.
async fn take(
    places: &Arc<Places>,
    peer: IpAddr,
    connections: &mut JoinSet<()>,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Option<Taken> {
    loop {
        if let Some(place) = places.take(peer) {
            return Some(place);
        }
        tokio::select! {
            () = shutdown.as_mut() => return None,
            Some(ended) = connections.join_next() => report(ended),
            () = tokio::time::sleep(PLACE_PAUSE) => {}
        }
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
