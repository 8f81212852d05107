//! Why there is no certificate from the authority.

use super::super::error::TlsError;
use super::http::HttpError;
use crate::kept_files::FileError;

/// Longest text of the authority in an error.
const TEXT_CHARS_MAX: usize = 500;
/// The type of the problem that an account does not exist (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate from the authority. The message says what to do where there is something.
#[derive(Debug, thiserror::Error)]
pub(in crate::tls) enum AcmeError {
    /// A file cannot be read or written, or cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The connection cannot be set up, or a certificate cannot be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority does not answer.
    #[error(
        "the authority cannot be reached: {0}; check the address, and that this machine may connect to it"
    )]
    Unreachable(String),
    /// The authority refuses, or answers something else than was asked for.
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// The authority does not know the account.
    #[error("the authority does not know the account of this server")]
    UnknownAccount,
    /// The authority does not verify this name as this server does.
    #[error("the authority offers no TLS-ALPN-01 for {0}; use another authority")]
    NoChallenge(String),
    /// The authority could not verify a name.
    #[error(
        "the authority could not verify {name}: {why}; port 443 of {name} must lead to this server, from the internet if the authority is there"
    )]
    NotVerified {
        /// The name.
        name: String,
        /// What the authority says.
        why: String,
    },
    /// A certificate was issued and is of no use.
    #[error("the authority issued a certificate that cannot be used: {0}")]
    Issued(String),
    /// It took too long.
    #[error("the authority did not finish in time")]
    Late,
    /// The library for the protocol failed a check of its own, as at an address that it cannot read.
    #[error("an answer could not be processed; the log has the panic")]
    Panic,
    /// There is no runtime for requests.
    #[error("the requests cannot be sent: {0}")]
    Runtime(#[source] std::io::Error),
}

impl From<instant_acme::Error> for AcmeError {
    fn from(error: instant_acme::Error) -> Self {
        if let instant_acme::Error::Api(problem) = &error
            && problem.r#type.as_deref() == Some(NO_ACCOUNT)
        {
            return Self::UnknownAccount;
        }
        if let instant_acme::Error::Other(inner) = &error
            && let Some(error) = inner.downcast_ref::<HttpError>()
        {
            return Self::Unreachable(printable(&error.to_string()));
        }
        Self::Refused(printable(&error.to_string()))
    }
}

/// Returns a text of the authority as it may be logged.
pub(super) fn printable(text: &str) -> String {
    let printable = text.chars().filter(|letter| !letter.is_control());
    printable.take(TEXT_CHARS_MAX).collect()
}
