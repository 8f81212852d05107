//! The identity of a client.
//!
//! Owns: [`ClientId`].

/// Identifies a client, so that clients take turns. The caller chooses what a client is, for example an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ClientId(pub u128);

impl ClientId {
    /// The engine and its owner. Where clients take turns, every second turn is theirs.
    pub const ENGINE: Self = Self(0);
}
