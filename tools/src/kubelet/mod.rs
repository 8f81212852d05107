//! What the kubelet of Kubernetes and a credential provider exchange.
//!
//! Owns: the request and the response (`credentialprovider.kubelet.k8s.io/v1`), the registry of an image, and the file
//! that makes the kubelet run the provider. Refuses: arguments and credentials, which the command has.

mod configuration;
mod protocol;
mod registry;

pub(crate) use self::configuration::ProviderConfiguration;
pub(crate) use self::protocol::{Credentials, REQUEST_BYTES_MAX, Request, respond};
pub(crate) use self::registry::Registry;
