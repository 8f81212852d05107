//! One connection's life: what it is served with, and how it is closed.
//!
//! Owns: [`drive`].
//! Refuses: accepting, which is `accept`'s; choosing the connections that end when places are short, which is
//! `places`'; when a connection is over, which is `attended`'s; and bytes, which are `socket`'s, `body`'s and
//! `linger`'s.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::answer::AnswerBody;
use super::attended::{Attended, LEAVE_MAX};
use super::limits::ConnectionLimits;
use super::linger;
use super::opening::{self, Opening};
use super::places::Taken;
use super::request_memory::{HeldRequest, RequestMemory};
use super::requests::{Requests, UnderWay};
use super::socket::Socket;
use crate::clock::RunningClock;
use crate::registry::Registry;
use crate::registry::ports::{ClientId, ReadAccount};

/// The answer to a head of HTTP/1.1 that did not come in time.
const LATE_HEAD: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a request knows of its client's connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Its address.
    pub(super) id: ClientId,
    pub(super) account: Option<Arc<dyn ReadAccount>>,
    /// This request.
    pub(super) under_way: Weak<UnderWay>,
    /// The memory that this request counts for; `None` if there was none left.
    pub(super) held: Option<Arc<HeldRequest>>,
}

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// With care: the client may have sent more than was read when the last answer was given.
    Linger,
    /// The same, once a client whose head did not come in time is told so.
    Late,
    /// At once.
    Plainly,
    /// At once, and what the client did not take is forgotten by the kernel too.
    Reset,
}

/// Serves one connection to its end, and closes it. Once `draining` is true it takes no further requests.
pub(super) async fn drive<S, B>(
    stream: TcpStream,
    place: Taken,
    service: S,
    limits: Arc<ConnectionLimits>,
    draining: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let place = Arc::new(place);
    let mut stopping = draining.clone();
    let opened = tokio::select! {
        opened = open(&stream, &limits) => opened,
        _ = place.told() => None,
        () = stop(&mut stopping, &limits.clock) => None,
    };
    let Some((begun, speaks_http2)) = opened else {
        return;
    };
    let account = limits.registry.as_ref().map(Registry::read_account);
    let requests = Requests::new(Arc::clone(&place), &limits.clock);
    let (socket, mut returned) = Socket::new(
        stream,
        begun,
        speaks_http2,
        &limits,
        &requests,
        account.clone(),
    );
    let attended = Attended {
        requests,
        account,
        limits: &limits,
        place: &place,
        draining,
    };
    let close = serve(socket, speaks_http2, service, attended).await;
    if let Ok(stream) = returned.try_recv() {
        end(stream, close, &place, &limits.clock).await;
    }
}

/// Resolves when a client that has said nothing is no longer waited for, at the end of the server. What is on its way then is still read.
async fn stop(draining: &mut watch::Receiver<bool>, clock: &RunningClock) {
    _ = draining.wait_for(|draining| *draining).await;
    clock.alarm(LEAVE_MAX).await;
}

/// Waits until the protocol is known: what was read for that, and whether it is HTTP/2. `None`: the client went, or was too slow.
async fn open(stream: &TcpStream, limits: &ConnectionLimits) -> Option<(Bytes, bool)> {
    let opening = opening::read(stream);
    match limits.clock.timeout(limits.header_timeout, opening).await {
        Ok(Ok(Opening::Http1(begun))) => return Some((begun, false)),
        Ok(Ok(Opening::Http2(begun))) => return Some((begun, true)),
        Ok(Ok(Opening::Nothing)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended"),
        Err(_elapsed) => tracing::debug!("a client said too little to know its protocol"),
    }
    None
}

/// Answers requests to the end of the connection.
async fn serve<S, B>(
    socket: Socket,
    speaks_http2: bool,
    service: S,
    attended: Attended<'_>,
) -> Close
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limits = attended.limits;
    let (requests, account) = (attended.requests.clone(), attended.account.clone());
    let peer = attended.place.peer();
    let memory = RequestMemory::new(&limits.requests, peer);
    let id = match peer {
        IpAddr::V4(address) => ClientId(address.to_ipv6_mapped().to_bits()),
        IpAddr::V6(address) => ClientId(address.to_bits()),
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        let held = memory.hold(&request).map(Arc::new);
        let under_way = requests.begin(held.clone());
        request.extensions_mut().insert(Client {
            id,
            account: account.clone(),
            under_way: Arc::downgrade(&under_way),
            held,
        });
        let answer = service.call(request);
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| AnswerBody::new(body, under_way)))
        }
    });
    let socket = TokioIo::new(socket);
    if !speaks_http2 {
        let connection = limits.http1.serve_connection(socket, service);
        let served = attended.serve(connection, http1::Connection::graceful_shutdown);
        return served.await;
    }
    let wide = limits.widen(attended.place);
    match &wide {
        Some(_) => attended.place.set_wide(),
        None => attended.place.want_wide(),
    }
    let connection = limits
        .http2(wide.as_ref())
        .serve_connection(socket, service);
    let served = attended.serve(connection, http2::Connection::graceful_shutdown);
    match served.await {
        // There the answer would be a frame.
        Close::Late => Close::Plainly,
        close @ (Close::Linger | Close::Plainly | Close::Reset) => close,
    }
}

async fn end(stream: TcpStream, close: Close, place: &Taken, clock: &RunningClock) {
    if close == Close::Late
        && let Err(error) = stream.try_write(LATE_HEAD)
    {
        tracing::debug!(%error, "a client was not told that its request came too late");
    }
    match close {
        Close::Linger | Close::Late => tokio::select! {
            () = linger::close(stream, clock) => {}
            () = leave(place, clock) => {}
        },
        Close::Plainly => {}
        Close::Reset => {
            if let Err(error) = stream.set_zero_linger() {
                tracing::debug!(%error, "an unread answer stays with the kernel for a while");
            }
        }
    }
}

/// Resolves when a connection that lingers is to end because others want its place.
async fn leave(place: &Taken, clock: &RunningClock) {
    if place.was_told() {
        clock.alarm(LEAVE_MAX).await;
    } else {
        place.told().await;
    }
}
