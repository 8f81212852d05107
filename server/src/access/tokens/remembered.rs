//! Tokens that were verified a moment ago.
//!
//! Owns: [`RememberedTokens`]. A signature costs more than a manifest's whole GET.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::VerifiedToken;

/// Longest token that is remembered: one with ten scopes and all claims of a build has about 5 KiB.
const BYTES_MAX: usize = 8 << 10;
/// Bytes of all tokens that are remembered; when there are more, all are forgotten.
const ALL_BYTES_MAX: usize = 8 << 20;

/// Verified tokens.
#[derive(Default)]
pub(in crate::access) struct RememberedTokens(Mutex<Known>);

#[derive(Default)]
struct Known {
    tokens: HashMap<Box<str>, Arc<VerifiedToken>>,
    bytes: usize,
}

impl RememberedTokens {
    /// Returns what a token was found to be; `None` if it is not remembered.
    pub(in crate::access) fn get(&self, token: &str) -> Option<Arc<VerifiedToken>> {
        self.0.lock().tokens.get(token).cloned()
    }

    /// Remembers a token.
    pub(in crate::access) fn add(&self, token: &str, verified: &Arc<VerifiedToken>) {
        if token.len() > BYTES_MAX {
            return;
        }
        let mut known = self.0.lock();
        if known.bytes + token.len() > ALL_BYTES_MAX {
            *known = Known::default();
        }
        let added = known.tokens.insert(token.into(), Arc::clone(verified));
        if added.is_none() {
            known.bytes += token.len();
        }
    }
}

/// Tokens are secret.
impl std::fmt::Debug for RememberedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RememberedTokens")
    }
}
