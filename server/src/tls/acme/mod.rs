//! Certificates of an authority that speaks ACME (RFC 8555), such as Let's Encrypt.
//!
//! Owns: [`AcmeOptions`], the account and the certificate that it keeps, and fetching another in time. Refuses: showing
//! the certificate to clients (`server`), and the thread on which this runs (`renewal` of the folder above).
//!
//! The authority verifies each name by TLS-ALPN-01 (RFC 8737): it connects to port 443 of the name, and gets a
//! certificate that proves that this server has the account's key. No other port or protocol is needed.
//!
//! Layers, each using only those before it: `http` (requests with limits), `error`, `challenge` (certificates that are
//! proofs), `schedule` (when, as pure functions), `files`, `account`, `order` (one certificate), `renewal`.

mod account;
mod challenge;
mod error;
mod files;
mod http;
mod order;
mod renewal;
mod schedule;

use std::path::PathBuf;

pub(super) use self::challenge::{Challenges, PROTOCOL};
pub(super) use self::renewal::Renewal;

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where certificates come from, and for what.
#[derive(Debug, Clone)]
pub struct AcmeOptions {
    /// The directory for the files, which is created.
    pub directory: PathBuf,
    /// Names and addresses of the server, at least one.
    pub names: Vec<String>,
    /// The address of the authority's directory.
    pub url: String,
    /// A file with authorities to trust for `url`, in PEM form, beside those of the system.
    pub authorities: Option<PathBuf>,
    /// Where the authority may send mail; used when the account is made.
    pub contact: Option<String>,
}
