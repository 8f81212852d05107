//! One connection, from its first byte to its end.
//!
//! Owns: [`serve`], and [`serve_tls`] for encrypted ones.
//! Refuses: accepting (`accept`), evicting (`slots`), deciding when a connection is over (`supervision`), closing it
//! (`close`), and bytes (`watched_stream` and the bodies).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::active_requests::ActiveRequests;
use super::close::{self, Close, EVICTION_TIME_MAX};
use super::connection_limits::ConnectionLimits;
use super::front_end::{Client, ConnectionFacts, Service};
use super::protocol::{self, Protocol};
use super::request_memory::RequestMemory;
use super::slots::Slot;
use super::stream::Stream;
use super::supervision::Supervisor;
use super::tracked_body::{TrackedBody, piece_max};
use super::watched_stream::WatchedStream;
use crate::clock::RunningClock;
use crate::tls::{ClientName, ServerTls};

/// Time that a TLS handshake may take, with two or three round trips.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(30);
/// The answer to plain HTTP where TLS is expected.
const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 53\r\n\r\nthis registry is reached by TLS: use https://, please";

/// Serves one connection until it ends, and closes it. Once `draining` is cancelled it accepts no further requests.
/// `client_name` is the name of the client, if it has shown a certificate.
pub(super) async fn serve<S: Service>(
    mut stream: impl Stream,
    client_name: Option<ClientName>,
    slot: Slot,
    service: S,
    limits: Arc<ConnectionLimits>,
    draining: CancellationToken,
) {
    let slot = Arc::new(slot);
    let opened = tokio::select! {
        opened = detect_protocol(&mut stream, &limits) => opened,
        _ = slot.evicted() => None,
        () = stop_waiting(&draining, &limits.clock) => None,
    };
    let Some((begun, speaks_http2)) = opened else {
        return;
    };
    let facts = match stream.peer() {
        Ok(peer) => ConnectionFacts {
            peer,
            client: slot.peer(),
            is_tls: stream.is_tls(),
            client_name,
        },
        Err(error) => {
            tracing::debug!(%error, "a client disconnected before its first request");
            return;
        }
    };
    let memory = service.answer_memory();
    let requests = ActiveRequests::new(Arc::clone(&slot), &limits.clock);
    let (socket, mut returned) = WatchedStream::new(
        stream,
        begun,
        speaks_http2,
        &limits,
        &requests,
        memory.clone(),
    );
    let supervisor = Supervisor {
        requests,
        memory,
        limits: &limits,
        slot: &slot,
        draining,
    };
    let close = answer_requests(socket, speaks_http2, service, facts, supervisor).await;
    if let Ok(stream) = returned.try_recv() {
        close::end(stream, close, &slot, &limits.clock).await;
    }
}

/// Answers the handshake of a connection, then serves it in the same way.
pub(super) async fn serve_tls<S: Service>(
    stream: TcpStream,
    tls: ServerTls,
    slot: Slot,
    service: S,
    limits: Arc<ConnectionLimits>,
    draining: CancellationToken,
) {
    let current = tls.current();
    let opening = limits
        .clock
        .timeout(HANDSHAKE_TIME_MAX, handshake(stream, current.config()));
    let opened = tokio::select! {
        opened = opening => opened,
        _ = slot.evicted() => return,
        () = stop_waiting(&draining, &limits.clock) => return,
    };
    match opened {
        Ok(Opened::Encrypted(mut stream)) if ServerTls::is_verification(stream.get_ref().1) => {
            // Its client has seen the certificate. It may have gone already.
            let ended = limits.clock.timeout(EVICTION_TIME_MAX, stream.shutdown());
            ended
                .await
                .map(Result::unwrap_or_default)
                .unwrap_or_default();
        }
        Ok(Opened::Encrypted(stream)) => {
            let client_name = current.client_name(stream.get_ref().1);
            serve(*stream, client_name, slot, service, limits, draining).await;
        }
        Ok(Opened::Plain(stream)) => {
            tracing::debug!("a client sent plain HTTP to a port for TLS");
            // Nothing was written before, so there is room. A client that has gone needs no answer.
            stream.try_write(PLAIN_HTTP_ANSWER).unwrap_or_default();
            close::end(stream, Close::Linger, &slot, &limits.clock).await;
        }
        Ok(Opened::Failed(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("a TLS handshake was not completed in time"),
    }
}

/// A connection to a port for TLS, after its first bytes.
enum Opened {
    Encrypted(Box<TlsStream<TcpStream>>),
    /// The client does not use TLS.
    Plain(TcpStream),
    Failed(io::Error),
}

/// Answers a TLS handshake.
async fn handshake(stream: TcpStream, tls: Arc<ServerConfig>) -> Opened {
    let mut first = [0];
    // The records of a handshake begin with 22, the methods of HTTP with a letter.
    match stream.peek(&mut first).await {
        Ok(1) if first.iter().all(u8::is_ascii_uppercase) => return Opened::Plain(stream),
        Ok(_) => {}
        Err(error) => return Opened::Failed(error),
    }
    match TlsAcceptor::from(tls).accept(stream).await {
        Ok(stream) => Opened::Encrypted(Box::new(stream)),
        Err(error) => Opened::Failed(error),
    }
}

/// Resolves when the server stops waiting for a client that has sent nothing: after shutdown, once bytes in flight had
/// time to arrive.
async fn stop_waiting(draining: &CancellationToken, clock: &RunningClock) {
    draining.cancelled().await;
    clock.alarm(EVICTION_TIME_MAX).await;
}

/// Waits until the protocol is known. Returns the bytes read for that and whether it is HTTP/2; `None` if the client
/// closed or was too slow.
async fn detect_protocol(
    stream: &mut impl Stream,
    limits: &ConnectionLimits,
) -> Option<(Bytes, bool)> {
    let opening = protocol::detect(stream);
    match limits.clock.timeout(limits.header_timeout, opening).await {
        Ok(Ok(Protocol::Http1(begun))) => return Some((begun, false)),
        Ok(Ok(Protocol::Http2(begun))) => return Some((begun, true)),
        Ok(Ok(Protocol::Closed)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended"),
        Err(_elapsed) => tracing::debug!("a client sent too little to detect its protocol"),
    }
    None
}

/// Answers requests until the connection ends.
async fn answer_requests<S: Service>(
    socket: WatchedStream<impl Stream>,
    speaks_http2: bool,
    service: S,
    facts: ConnectionFacts,
    supervisor: Supervisor<'_>,
) -> Close {
    let limits = supervisor.limits;
    let requests = supervisor.requests.clone();
    let peer = supervisor.slot.peer();
    let (facts, memory) = (Arc::new(facts), RequestMemory::new(&limits.requests, peer));
    let piece_max = piece_max(speaks_http2, facts.is_tls);
    let service = service_fn(move |request: Request<Incoming>| {
        let held = memory.hold(&request).map(Arc::new);
        let under_way = requests.begin(held.clone());
        let client = Client::new(peer, &facts, &under_way, held);
        let answer = service.answer(request, client);
        async move {
            let answer = answer.await;
            Ok::<_, Infallible>(answer.map(|body| TrackedBody::new(body, under_way, piece_max)))
        }
    });
    let socket = TokioIo::new(socket);
    if !speaks_http2 {
        let connection = limits.http1().serve_connection(socket, service);
        let served = supervisor.serve(connection, http1::Connection::graceful_shutdown);
        return served.await;
    }
    let large = limits.take_large_windows(supervisor.slot);
    match &large {
        Some(_) => supervisor.slot.set_large_buffers(),
        None => supervisor.slot.request_large_buffers(),
    }
    let connection = limits
        .http2(large.as_ref())
        .serve_connection(socket, service);
    let served = supervisor.serve(connection, http2::Connection::graceful_shutdown);
    match served.await {
        // On HTTP/2 this answer would be read as a frame.
        Close::RequestTimeout => Close::Immediate,
        close @ (Close::Linger | Close::Immediate | Close::Reset) => close,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Ready;
    use std::net::IpAddr;

    use futures_util::future::BoxFuture;
    use http::{Response, Version};
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::super::connection_limits::Http2Options;
    use super::super::front_end::AnswerMemory;
    use super::super::slots::Slots;
    use super::*;

    /// A front end that answers with the method and path of a request.
    #[derive(Clone, Default)]
    struct Echo(Option<Arc<dyn AnswerMemory>>);

    impl Service for Echo {
        type Body = Full<Bytes>;
        type Answer = Ready<Response<Full<Bytes>>>;

        fn answer(&self, request: Request<Incoming>, client: Client) -> Self::Answer {
            assert!(client.has_request_memory());
            let text = format!("{} {}", request.method(), request.uri().path());
            std::future::ready(Response::new(Full::new(text.into())))
        }

        fn answer_memory(&self) -> Option<Arc<dyn AnswerMemory>> {
            self.0.clone()
        }
    }

    /// Memory whose bytes are never those that were checked.
    #[derive(Debug)]
    struct ChangedMemory;

    impl AnswerMemory for ChangedMemory {
        fn record_progress(&self) {}

        fn revoked(&self) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }

        fn record_drop(&self) {}

        fn set_mapping_allowed(&self, _: bool) {}

        fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool {
            use_bytes();
            false
        }

        fn load_mapped(&self) -> Option<BoxFuture<'static, bool>> {
            None
        }
    }

    /// Serves a stream.
    fn serve_echo(stream: impl Stream, echo: Echo) -> impl Future<Output = ()> {
        let clock = RunningClock::start();
        let timeout = Duration::from_secs(10);
        let limits = ConnectionLimits::new(timeout, timeout, &Http2Options::default(), &clock);
        let slot = Slots::new(1, &clock).take(IpAddr::from([10, 0, 0, 1]));
        let (limits, draining) = (Arc::new(limits), CancellationToken::new());
        serve(stream, None, slot.unwrap(), echo, limits, draining)
    }

    /// Returns the client's side of a connection on which [`Echo`] is served, and the future of its end.
    fn connect() -> (DuplexStream, impl Future<Output = ()>) {
        let (stream, client) = duplex(64);
        (client, serve_echo(stream, Echo::default()))
    }

    /// Guards: a connection whose answer may have changed after its check is reset, so that the kernel sends no more of
    /// it.
    #[tokio::test]
    async fn an_answer_that_may_have_changed_is_reset() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let serving = serve_echo(stream, Echo(Some(Arc::new(ChangedMemory))));
        let asking = async move {
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            client
                .read_to_end(&mut Vec::new())
                .await
                .map_err(|error| error.kind())
        };
        let (answer, ()) = tokio::join!(asking, serving);
        assert_eq!(answer, Err(io::ErrorKind::ConnectionReset));
    }

    /// Guards: a connection is served over any stream, not only over a socket. Requests on HTTP/1.1 are answered, and
    /// the connection ends with the client's side.
    #[tokio::test]
    async fn http1_needs_no_socket() {
        let (mut client, serving) = connect();
        let asking = async move {
            let request = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nPUT /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            client.write_all(request).await.unwrap();
            let mut answers = String::new();
            client.read_to_string(&mut answers).await.unwrap();
            answers
        };
        let (answers, ()) = tokio::join!(asking, serving);
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
        assert!(answers.contains("GET /a") && answers.ends_with("PUT /b"));
    }

    /// Guards: the same on HTTP/2.
    #[tokio::test]
    async fn http2_needs_no_socket() {
        let (client, serving) = connect();
        let asking = async move {
            let executor = hyper_util::rt::TokioExecutor::new();
            let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(client));
            let (mut sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            let request = Request::get("http://x/a").version(Version::HTTP_2);
            let request = request.body(Full::<Bytes>::default()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let body = http_body_util::BodyExt::collect(answer.into_body()).await;
            body.unwrap().to_bytes()
        };
        let (answer, ()) = tokio::join!(asking, serving);
        assert_eq!(answer, "GET /a");
    }
}
