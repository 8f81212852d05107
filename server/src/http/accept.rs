//! Accepting connections, and draining them at the end.
//!
//! Owns: [`Listening`]. Refuses: choosing the connections that end when all places are taken, and the one that has the next place,
//! which `places` does.
//!
//! Invariant: a connection that waits for a place does not keep those behind it from being accepted; beyond the places and the line of
//! those that wait, at most one is.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
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
use super::places::{Line, Next, Places};

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// While connections wait for a place it is looked at so often whether others may be told to leave.
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
                            service.clone(),
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
