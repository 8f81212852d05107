//! The self-signed certificate that every server of a TLS scenario uses.
//!
//! Owns: [`Certificate`].

use std::fs;
use std::path::{Path, PathBuf};

/// A certificate for `localhost` and its key, as files.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one in `folder`.
    pub fn make(folder: &Path) -> Result<Self, String> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names);
        let made = made.map_err(|e| format!("make a certificate: {e}"))?;
        let of = Self {
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        let write = |path: &Path, text: String| {
            fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
        };
        write(&of.certificate, made.cert.pem())?;
        write(&of.key, made.signing_key.serialize_pem())?;
        Ok(of)
    }
}
