//! Implements the registry's source of bytes on a request's body.
//!
//! Owns: the map from errors of a body to those of the registry, and from addresses to clients of the engine.

use std::net::IpAddr;

use bytes::Bytes;
use tonnage_engine::vocabulary::ClientId;

use crate::registry::{Error, Result, Source};
use crate::transport::request_body::{BodyError, RequestBody};

/// Returns the id of the client with this address, by which its work takes turns with that of others.
pub(super) fn client_id(address: IpAddr) -> ClientId {
    match address {
        IpAddr::V4(address) => ClientId(address.to_ipv6_mapped().to_bits()),
        IpAddr::V6(address) => ClientId(address.to_bits()),
    }
}

impl Source for RequestBody {
    fn client(&self) -> ClientId {
        client_id(self.peer())
    }

    fn length(&self) -> Option<u64> {
        self.length()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.read().await.map_err(|error| match error {
            BodyError::Broken => Error::BodyBroken,
            BodyError::TimedOut => Error::BodyTimeout,
            BodyError::Framing => Error::BodyFraming,
        })
    }
}
