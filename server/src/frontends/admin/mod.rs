//! What operators ask, apart from the registry: metrics and health on a listener, everything else on a socket in the store's directory.

pub(crate) mod probes;
pub(crate) mod socket;
