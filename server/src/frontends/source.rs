//! Implements the registry's source of bytes on a request's body.
//!
//! Owns: the map from errors of a body to those of the registry.

use bytes::Bytes;

use crate::registry::{Error, Result, Source};
use crate::transport::request_body::{BodyError, RequestBody};

impl Source for RequestBody {
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
