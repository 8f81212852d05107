//! Why there is no TLS.

use crate::kept_files::FileError;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of an authority has no usable certificate.
    #[error("the file of the certificate authority cannot be used: {0}")]
    Authority(String),
    /// The system has no root certificates, and no authority was named.
    #[error("this machine has no root certificates; install them or name a certificate authority")]
    NoRoots,
    /// A file cannot be read or written, or has no usable certificate or key.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library rejects the configuration.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}
