//! Tokens that were verified a moment ago.
//!
//! Owns: [`RememberedTokens`]. A signature costs more than a manifest's whole GET.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::VerifiedToken;

/// Tokens that are remembered; when there are more, all are forgotten.
const COUNT_MAX: usize = 4096;
/// Longest token that is remembered: one with ten scopes has about 2 KiB.
const BYTES_MAX: usize = 4 << 10;

/// Verified tokens.
#[derive(Default)]
pub(super) struct RememberedTokens(Mutex<HashMap<Box<str>, Arc<VerifiedToken>>>);

impl RememberedTokens {
    /// Returns what a token was found to be; `None` if it is not remembered.
    pub(super) fn get(&self, token: &str) -> Option<Arc<VerifiedToken>> {
        self.0.lock().get(token).cloned()
    }

    /// Remembers a token.
    pub(super) fn add(&self, token: &str, verified: &Arc<VerifiedToken>) {
        if token.len() > BYTES_MAX {
            return;
        }
        let mut known = self.0.lock();
        if known.len() >= COUNT_MAX {
            known.clear();
        }
        known.insert(token.into(), Arc::clone(verified));
    }
}

/// Tokens are secret.
impl std::fmt::Debug for RememberedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RememberedTokens")
    }
}
