//! Bodies of requests.
//!
//! Owns: [`RequestBody`], and how long a client may pause inside one.
//! Refuses: limits on the length of a body, which the front end sets.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use http::Version;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::active_requests::{ActiveRequest, ClientWait};
use super::front_end::Client;
use crate::clock::RunningClock;

/// Shorter pieces are copied, because each would keep the whole buffer that it was read into.
const COPIED_BYTES: usize = 16 << 10;

/// Why a body has no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It ended early.
    Broken,
    /// Nothing arrived for too long.
    TimedOut,
    /// Its chunked framing is invalid.
    Framing,
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    peer: IpAddr,
    incoming: Incoming,
    length: Option<u64>,
    /// Bytes of `length` that were not received yet.
    missing: u64,
    idle: Duration,
    clock: RunningClock,
    /// Its request, on which a wait for the body is recorded.
    under_way: Weak<ActiveRequest>,
    state: BodyState,
}

/// The state of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    /// The client waits for a 100 before it sends; hyper writes it when the body is first read.
    Expected,
    /// More may arrive.
    Coming,
    /// It was read to its end.
    Over,
    /// It failed.
    Broken,
}

impl RequestBody {
    /// Creates the body of the request with this head. `idle` is the longest pause of the client inside it.
    pub(crate) fn new(
        head: &Parts,
        incoming: Incoming,
        client: &Client,
        idle: Duration,
        clock: &RunningClock,
    ) -> Self {
        let mut expectations = head.headers.get_all(EXPECT).iter();
        let is_expected = head.version >= Version::HTTP_11
            && expectations.any(|expectation| !expectation.is_empty());
        let length = incoming.size_hint().exact();
        let state = match (incoming.is_end_stream(), is_expected) {
            (true, _) => BodyState::Over,
            (false, true) => BodyState::Expected,
            (false, false) => BodyState::Coming,
        };
        Self {
            peer: client.peer(),
            incoming,
            length,
            missing: length.unwrap_or(0),
            idle,
            clock: clock.clone(),
            under_way: client.under_way(),
            state,
        }
    }

    /// Returns the address by which limits per client are counted.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Returns whether all of it was received.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == BodyState::Over || self.remaining() == Some(0)
    }

    /// Returns how many bytes were not received yet, if that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        let coming = self.state == BodyState::Coming;
        self.length.filter(|_| coming).map(|_| self.missing)
    }

    /// Returns whether more may arrive.
    pub(crate) fn is_coming(&self) -> bool {
        self.state == BodyState::Coming
    }

    /// Returns whether more may arrive and the length is not known.
    pub(crate) fn is_chunked(&self) -> bool {
        self.is_coming() && self.length.is_none()
    }
}

impl RequestBody {
    /// Returns the announced length in bytes.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the next bytes, or `None` at the end.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.state {
            BodyState::Over => return Ok(None),
            BodyState::Broken => return Err(BodyError::Broken),
            BodyState::Expected | BodyState::Coming => self.state = BodyState::Coming,
        }
        let request = self.under_way.upgrade();
        let _awaited = request.as_ref().map(ClientWait::begin);
        loop {
            let client_ended = request.as_ref().map(|request| request.client_ended());
            let client_ended = OptionFuture::from(client_ended);
            let frame = self.clock.timeout(self.idle, self.incoming.frame());
            let frame = tokio::select! {
                biased;
                frame = frame => frame,
                Some(()) = client_ended => {
                    // Bytes that arrived after the check above arrived before the end.
                    let Some(frame) = self.incoming.frame().now_or_never() else {
                        self.state = BodyState::Broken;
                        return Err(BodyError::Broken);
                    };
                    Ok(frame)
                }
            };
            let error = match frame {
                Ok(None) if self.missing == 0 => {
                    self.state = BodyState::Over;
                    return Ok(None);
                }
                // hyper ends a body like this if HTTP/2 resets its stream without an error.
                Ok(None) => BodyError::Broken,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => {
                        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                        self.missing = self.missing.saturating_sub(length);
                        if bytes.len() < COPIED_BYTES {
                            return Ok(Some(Bytes::copy_from_slice(&bytes)));
                        }
                        return Ok(Some(bytes));
                    }
                    // Empty frames and trailers carry no content.
                    Ok(_) | Err(_) => continue,
                },
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "the body ended early");
                    if is_framing(&error) {
                        BodyError::Framing
                    } else {
                        BodyError::Broken
                    }
                }
                Err(_elapsed) => BodyError::TimedOut,
            };
            self.state = BodyState::Broken;
            return Err(error);
        }
    }
}

/// Returns whether hyper found the chunked framing of a body invalid.
fn is_framing(error: &hyper::Error) -> bool {
    let cause = error.source();
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    matches!(
        cause.map(io::Error::kind),
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    )
}
