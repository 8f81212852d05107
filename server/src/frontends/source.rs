//! Implements the registry's source of bytes on a request's body.
//!
//! Owns: the map from errors of a body to those of the registry, and from addresses to clients of the engine.

use std::net::IpAddr;

use bytes::Bytes;
use tonnage_engine::vocabulary::ClientId;

use crate::registry::{Error, Result, Source};
use crate::transport::request_body::{BodyError, RequestBody};

/// Returns the id of the client that is counted by this address, by which its work takes turns with that of others.
pub(super) fn client_id(address: IpAddr) -> ClientId {
    match address {
        IpAddr::V4(address) => ClientId(address.to_ipv6_mapped().to_bits()),
        // The address of a network, so its low bits are zero. That of the loopback network is zero as a whole, which
        // is the engine's id.
        IpAddr::V6(network) => ClientId(network.to_bits() | 1),
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Guards: clients with different addresses take turns with each other, and none takes those of the engine.
    #[test]
    fn each_address_has_an_id_of_its_own() {
        let addresses: [IpAddr; 5] = [
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::LOCALHOST.into(),
            // The network of the loopback address.
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0).into(),
        ];
        let mut ids: Vec<u128> = addresses.map(|address| client_id(address).0).to_vec();
        ids.push(ClientId::ENGINE.0);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), addresses.len() + 1);
    }
}
