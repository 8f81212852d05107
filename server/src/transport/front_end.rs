//! The interface between the transport and front ends.
//!
//! Owns: [`FrontEnd`], [`Service`] and [`AnswerMemory`], which a front end implements, and [`Client`] and
//! [`ConnectionFacts`], which describe the client of a request.
//! Refuses: dependencies on a front end; a listener gets one as a value.

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
use crate::tls::ClientName;

/// A protocol over HTTP that a listener serves.
pub(crate) trait FrontEnd: Send + Sync + 'static {
    /// The type that answers the requests of one connection.
    type Service: Service;

    /// Creates the service of a new connection.
    fn service(&self) -> Self::Service;
}

/// Answers the requests of one connection.
pub(crate) trait Service: Send + 'static {
    /// The body of an answer.
    type Body: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'static;

    /// The answer to a request, once it is known.
    type Answer: Future<Output = Response<Self::Body>> + Send + 'static;

    /// Answers a request. It is called in the task of the connection, also on HTTP/2, so it must be short.
    fn answer(&self, request: Request<Incoming>, client: Client) -> Self::Answer;

    /// Returns the memory of the connection's answers; `None` if they are small.
    fn answer_memory(&self) -> Option<Arc<dyn AnswerMemory>>;
}

/// The memory that one client's answers take from the budget that all clients share. A client that reads nothing
/// loses memory to others.
pub(crate) trait AnswerMemory: Send + Sync + Debug {
    /// Records that the client read bytes.
    fn record_progress(&self);
    /// Resolves once memory of the client is needed: an answer that it does not read must be dropped, or all of them.
    fn revoked(&self) -> BoxFuture<'static, ()>;
    /// Records that one of its answers was dropped; [`AnswerMemory::revoked`] resolves again when that is not enough.
    fn record_drop(&self);
    /// Allows or forbids that bytes of answers are mapped from files, not copied. Whoever allows it uses them only in
    /// [`AnswerMemory::used_unchanged`].
    fn set_mapping_allowed(&self, is_allowed: bool);
    /// Runs `use_bytes`, which may use mapped bytes of answers. Returns false if those may not be the ones that were
    /// checked.
    fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool;
    /// Returns a future that reads mapped bytes that are no longer in memory, and resolves to whether they are as they
    /// were checked. `None` if all are in memory.
    fn load_mapped(&self) -> Option<BoxFuture<'static, bool>>;
}

/// Properties of a connection, for authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionFacts {
    /// The address of the client's end.
    pub peer: SocketAddr,
    /// The address by which limits per client are counted: of IPv6, the network.
    pub client: IpAddr,
    /// Whether it is encrypted.
    pub is_tls: bool,
    /// The name of the client, from its certificate.
    pub client_name: Option<ClientName>,
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

    /// Returns the address by which limits per client are counted.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Returns the properties of its connection.
    pub(crate) fn connection(&self) -> &ConnectionFacts {
        &self.connection
    }

    /// Returns whether there was memory for the request. Without memory, it has to be rejected.
    pub(crate) fn has_request_memory(&self) -> bool {
        self.held.is_some()
    }

    /// Records that the answer holds memory of [`Service::answer_memory`] from now on. Returns false if the connection
    /// has ended.
    pub(crate) fn hold_answer_memory(&self) -> bool {
        let request = self.under_way.upgrade();
        request.inspect(|request| request.hold_memory()).is_some()
    }

    /// Keeps the stream of the answer until the client has read all of it: on HTTP/2, it is reset if it is left unread.
    pub(crate) fn keep_stream(&self) {
        let request = self.under_way.upgrade();
        request.inspect(|request| request.keep_stream());
    }

    pub(super) fn under_way(&self) -> Weak<ActiveRequest> {
        Weak::clone(&self.under_way)
    }
}
