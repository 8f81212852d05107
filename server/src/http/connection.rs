//! One connection's life: what it is served with, and what ends it.
//!
//! Owns: [`drive`], and when a connection that asks for nothing is over. hyper bounds the wait for a head of HTTP/1.1; an HTTP/2 client
//! that answers pings and asks for nothing would be kept for good, and with it one of [`ServerOptions::connections_max`] places.
//! Refuses: accepting, which is `server`'s, and bytes, which are `socket`'s, `body`'s and `linger`'s.
//!
//! Invariant: whether for the end of the server or for silence, requests under way end first; cut off is only an answer that is not read,
//! and a connection that was told to go and asked for nothing since.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::linger;
use super::server::ServerOptions;
use super::socket::Socket;
use super::watch::Watch;
use crate::clock::RunningClock;
use crate::registry::Registry;
use crate::registry::ports::ReadAccount;

/// Largest body frame that HTTP/1.1 hands up, and with it the unit of copying on a push.
const H1_BUFFER_BYTES: usize = 512 << 10;
const H2_FRAME_BYTES: u32 = 256 << 10;
const H2_SEND_BUFFER_BYTES: usize = 1 << 20;
/// A peer that is gone without a word is noticed by an unanswered ping.
const H2_PING_EVERY: Duration = Duration::from_secs(30);
const H2_PONG_WITHIN: Duration = Duration::from_secs(20);

/// How every connection is treated.
#[derive(Clone)]
pub(super) struct Manners {
    builder: Builder<TokioExecutor>,
    header_timeout: Duration,
    unread_timeout: Duration,
    pub(super) clock: RunningClock,
    pub(super) connections_max: usize,
    /// Whose memory answers take; the admin listener's are small.
    registry: Option<Registry>,
}

impl Manners {
    pub(super) fn of(
        options: &ServerOptions,
        clock: &RunningClock,
        registry: Option<Registry>,
    ) -> Self {
        Self {
            builder: builder(options, clock),
            clock: clock.clone(),
            header_timeout: options.header_timeout,
            unread_timeout: options.unread_timeout,
            connections_max: options.connections_max,
            registry,
        }
    }
}

fn builder(options: &ServerOptions, clock: &RunningClock) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(clock.clone())
        .header_read_timeout(options.header_timeout)
        // A client may say with the end of its stream that its request is whole, and then wait for the answer.
        .half_close(true)
        .max_buf_size(H1_BUFFER_BYTES);
    builder
        .http2()
        .timer(clock.clone())
        .initial_stream_window_size(options.http2.stream_window_bytes)
        .initial_connection_window_size(options.http2.connection_window_bytes)
        .max_frame_size(H2_FRAME_BYTES)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .max_concurrent_streams(options.http2.streams)
        .max_header_list_size(options.http2.header_bytes)
        .keep_alive_interval(H2_PING_EVERY)
        .keep_alive_timeout(H2_PONG_WITHIN);
    builder
}

/// What a request knows of its client's connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) watch: Watch,
    pub(super) account: Option<Arc<dyn ReadAccount>>,
}

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    /// With care: the client may have sent more than was read when the last answer was given.
    Linger,
    /// At once.
    Plainly,
    /// At once, and what the client did not take is forgotten by the kernel too.
    Reset,
}

/// Serves one connection to its end, and closes it. Once `draining` is true it takes no further requests.
pub(super) async fn drive<S, B>(
    stream: TcpStream,
    service: S,
    manners: Manners,
    draining: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let clock = manners.clock.clone();
    let waits = (manners.header_timeout, manners.unread_timeout);
    let account = manners.registry.as_ref().map(Registry::read_account);
    let (socket, mut returned) = Socket::new(stream, &clock, waits.0, waits.1, account.clone());
    let close = serve(socket, service, manners, account, draining).await;
    let Ok(stream) = returned.try_recv() else {
        return;
    };
    match close {
        Close::Linger => linger::close(stream, &clock).await,
        Close::Plainly => {}
        Close::Reset => {
            if let Err(error) = stream.set_zero_linger() {
                tracing::debug!(%error, "an unread answer stays with the kernel for a while");
            }
        }
    }
}

/// Answers the requests of a connection.
async fn serve<S, B>(
    socket: Socket,
    service: S,
    manners: Manners,
    account: Option<Arc<dyn ReadAccount>>,
    mut draining: watch::Receiver<bool>,
) -> Close
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let patience = manners.unread_timeout;
    let (watch, requests) = (Watch::new(&manners.clock), Requests::default());
    let revoked = account.as_ref().map(|account| account.revoked());
    let mut revoked = pin!(async move {
        match revoked {
            Some(revoked) => revoked.await,
            None => std::future::pending().await,
        }
    });
    let client = Client {
        watch: watch.clone(),
        account,
    };
    let counted = requests.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        let under_way = counted.begin();
        let answer = service.call(request);
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| Counted { body, under_way }))
        }
    });
    let connection = manners
        .builder
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut idle = pin!(requests.idle(&manners.clock, manners.header_timeout));
    let mut forgotten = pin!(watch.forgotten(patience));
    let mut ending = false;
    let mut close = Close::Linger;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                let Err(error) = ended else { return close };
                // Clients that go away are everyday; what was ours was logged where it happened.
                tracing::debug!(error, "a connection ended");
                // hyper has answered a request that it does not understand.
                let answered = error.downcast_ref().is_some_and(hyper::Error::is_parse);
                return if answered { Close::Linger } else { Close::Plainly };
            }
            () = &mut forgotten => {
                tracing::debug!("an answer was left unread");
                return Close::Reset;
            }
            () = &mut revoked => {
                tracing::debug!("an answer was left unread while others waited for its memory");
                return Close::Reset;
            }
            () = &mut idle => {
                // Told to go and still here: HTTP/2 waits for an answer to that.
                if ending {
                    tracing::debug!("a connection that asked for nothing did not end");
                    return Close::Plainly;
                }
                idle.set(requests.idle(&manners.clock, manners.header_timeout));
            }
            // The sender lives as long as connections do; its end would be the end of the server too.
            _ = draining.wait_for(|draining| *draining), if !ending => {}
        }
        ending = true;
        close = if requests.are_under_way() {
            Close::Linger
        } else {
            Close::Plainly
        };
        connection.as_mut().graceful_shutdown();
    }
}

/// How many requests of a connection are under way: from their head to the last byte of the answer.
#[derive(Debug, Clone)]
struct Requests(watch::Sender<usize>);

impl Default for Requests {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

/// Counts until it drops.
#[derive(Debug)]
struct UnderWay(watch::Sender<usize>);

impl Requests {
    fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.0.clone())
    }

    fn are_under_way(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Resolves once there was none for `patience`.
    fn idle(&self, clock: &RunningClock, patience: Duration) -> impl Future<Output = ()> + use<> {
        let (clock, mut count) = (clock.clone(), self.0.subscribe());
        async move {
            loop {
                if count.wait_for(|count| *count == 0).await.is_err() {
                    return;
                }
                if clock.timeout(patience, count.changed()).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// An answer's body that holds its request under way.
#[derive(Debug)]
struct Counted<B> {
    body: B,
    #[expect(dead_code, reason = "held for its drop")]
    under_way: UnderWay,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
