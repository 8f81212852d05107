//! Why there is no TLS.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of an authority has no usable certificate.
    #[error("the file of the certificate authority cannot be used: {0}")]
    Authority(String),
    /// The system has no root certificates, and no authority was named.
    #[error("this machine has no root certificates; install them or name a certificate authority")]
    NoRoots,
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done, such as "read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file has no usable certificate or key.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library rejects the configuration.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl TlsError {
    /// Creates the error that a file has no usable content.
    pub(super) fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Self {
        Self::Unusable {
            path: path.to_path_buf(),
            why: why.to_string(),
        }
    }
}
