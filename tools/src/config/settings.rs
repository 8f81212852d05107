//! Settings as the server and the store take them.
//!
//! Owns: the way from option values to the types of the libraries; every option is read here or in the command
//! that needs it.
//! Refuses: bounds; the table and the libraries have them.

use tonnage_engine::options::Options;

use crate::config::resolve::Resolved;

/// The store's options.
pub(crate) fn store_options(resolved: &Resolved) -> Options {
    Options {
        spill_threshold_bytes: resolved.number("storage.spill_threshold"),
        staging_budget_bytes: resolved.count("storage.staging_budget"),
        read_budget_bytes: resolved.count("storage.read_budget"),
        shared_segment_bytes: resolved.number("storage.shared_segment_size"),
        uploads_max: resolved.count("limits.uploads"),
        upload_ttl: resolved.duration("storage.upload_ttl"),
        lease_grace: resolved.duration("storage.lease_grace"),
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags::ConfigFlags;
    use crate::config::{raw, resolve};

    /// Guards: the defaults in the table of options are the engine's own.
    #[test]
    fn defaults_are_those_of_the_engine() {
        let resolved = resolve::resolve(raw::read(&ConfigFlags::default(), std::iter::empty()));
        assert_eq!(store_options(&resolved), Options::default());
    }
}
