//! TLS, for all connections.
//!
//! Owns: the crypto provider, what is trusted, the certificate that a listener shows, and where it comes from; and the
//! names in the certificates of clients.
//! Refuses: connections, which the transport and `outgoing` make.
//!
//! Layers, each using only those before it: `identity` (a certificate with its key), `authority` (the registry's own),
//! `client` (the configuration for other servers), `acme` (certificates of another authority), `source` (files, the own
//! authority or `acme`, and what they have now), `client_names` and `client_certificates` (who a client is), `server`
//! (the configuration of listeners), `renewal` (when a listener's certificate is replaced).

mod acme;
mod authority;
mod client;
mod client_certificates;
mod client_names;
mod error;
mod identity;
mod renewal;
mod server;
mod source;
#[cfg(test)]
mod tests;

pub use self::acme::{AcmeOptions, LETS_ENCRYPT};
pub use self::client::{client_config, https_connector};
pub use self::client_certificates::ClientCertificates;
pub use self::client_names::{ClientName, ClientUri, InvalidClientUri, NameKind};
pub use self::error::TlsError;
pub use self::server::{AlpnPreference, ServerTls, TlsOptions};
pub use self::source::{OwnAuthority, TlsSource};
