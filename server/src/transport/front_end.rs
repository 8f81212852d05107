//! What a front end is to the transport.
//!
//! Owns: [`FrontEnd`], [`Service`] and [`AnswerMemory`], which a front end implements, and [`Client`] and
//! [`ConnectionFacts`], what it is told about the client of a request.
//! Refuses: knowing any front end; a listener is given one as a value.

use std::error::Error;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use super::active_requests::ActiveRequest;
use super::request_memory::HeldRequest;

/// A protocol over HTTP that a listener serves.
pub(crate) trait FrontEnd: Send + Sync + 'static {
    /// What answers the requests of one connection.
    type Service: Service;

    /// The service of a new connection.
    fn service(&self) -> Self::Service;
}

/// Answers the requests of one connection. Cheap to clone.
pub(crate) trait Service: Clone + Send + 'static {
    /// The body of an answer.
    type Body: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'static;

    /// Answers a request.
    fn answer(
        self,
        request: Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// The memory that the answers of the connection take; `None` where they are small.
    fn answer_memory(&self) -> Option<Arc<dyn AnswerMemory>>;
}

/// The memory that one client's answers take, of what all clients share. A client that takes nothing of them gives way
/// to others.
pub(crate) trait AnswerMemory: Send + Sync + Debug {
    /// Notes that the client took bytes.
    fn progressed(&self);
    /// Resolves once the client has to give way: an answer that it takes nothing of is to be dropped, or all of them.
    fn revoked(&self) -> BoxFuture<'static, ()>;
    /// Notes that one of its answers was dropped; [`AnswerMemory::revoked`] resolves again when that is not enough.
    fn gave_way(&self);
}

/// What a connection itself tells about its client, for authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionFacts {
    /// The address of the client's end.
    pub peer: SocketAddr,
}

/// The client of one request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    peer: IpAddr,
    connection: Arc<ConnectionFacts>,
    under_way: Weak<ActiveRequest>,
    held: Option<Arc<HeldRequest>>,
}

impl Client {
    pub(super) fn new(
        peer: IpAddr,
        connection: &Arc<ConnectionFacts>,
        under_way: &Arc<ActiveRequest>,
        held: Option<Arc<HeldRequest>>,
    ) -> Self {
        Self {
            peer,
            connection: Arc::clone(connection),
            under_way: Arc::downgrade(under_way),
            held,
        }
    }

    /// The address by which the client is counted.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// What its connection tells about it.
    pub(crate) fn connection(&self) -> &ConnectionFacts {
        &self.connection
    }

    /// Whether there was memory for the request. Where there was none, it is to be rejected.
    pub(crate) fn has_request_memory(&self) -> bool {
        self.held.is_some()
    }

    /// Notes that the answer holds memory of [`Service::answer_memory`] from now on; false where the connection has
    /// ended.
    pub(crate) fn hold_answer_memory(&self) -> bool {
        let request = self.under_way.upgrade();
        request.inspect(|request| request.hold_memory()).is_some()
    }

    pub(super) fn under_way(&self) -> Weak<ActiveRequest> {
        Weak::clone(&self.under_way)
    }
}
