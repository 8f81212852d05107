//! Settings as the server and the store take them.
//!
//! Owns: the way from option values to the types of the libraries; every option is read here or in the command
//! that needs it.
//! Refuses: bounds; the table and the libraries have them.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use tonnage_engine::options::Options;
use tonnage_server::registry::Limits;
use tonnage_server::{Http2Options, ServerOptions};

use crate::config::resolve::Resolved;
use crate::exit::Exit;
use crate::failure::Failure;

/// Where the store is, absolute: what is printed must mean the same in any directory.
pub(crate) fn data(resolved: &Resolved) -> Result<PathBuf, Failure> {
    let path = resolved.path("data");
    std::path::absolute(path).map_err(|error| {
        Failure::new(
            Exit::Disk,
            format!("{} has no absolute path: {error}", path.display()),
        )
    })
}

/// The server's options, but for what it must be asked at run time.
pub(crate) fn server_options(resolved: &Resolved) -> ServerOptions {
    let Some(listen) = resolved.address("listen") else {
        unreachable!("the registry cannot be switched off");
    };
    ServerOptions {
        listen,
        admin_listen: resolved.address("admin_listen"),
        limits: Limits {
            manifest_bytes: resolved.number("limits.manifest_bytes"),
            tags_per_push: resolved.count("limits.tags_per_push"),
            sparse: understood(resolved.list("sparse_repositories")),
        },
        header_timeout: resolved.duration("timeouts.header"),
        body_idle_timeout: resolved.duration("timeouts.body_idle"),
        manifest_timeout: resolved.duration("timeouts.manifest"),
        unread_timeout: resolved.duration("timeouts.unread"),
        manifest_budget_bytes: resolved.count("limits.manifest_memory"),
        connections_max: resolved.count("limits.connections"),
        chunk_min_bytes: resolved.number("limits.chunk_min"),
        mirror_of: resolved.list("mirror_of").to_vec(),
        hostnames: understood(resolved.list("hostnames")),
        locations: one(resolved.text("locations")),
        http2: Http2Options {
            streams: small(resolved, "http2.streams"),
            stream_window_bytes: small(resolved, "http2.stream_window"),
            connection_window_bytes: small(resolved, "http2.connection_window"),
            header_bytes: small(resolved, "http2.header_bytes"),
        },
        drain: resolved.duration("drain_timeout"),
        ..ServerOptions::default()
    }
}

/// A number whose bounds in the table keep it below 32 bits.
fn small(resolved: &Resolved, key: &str) -> u32 {
    u32::try_from(resolved.number(key)).unwrap_or(u32::MAX)
}

/// A value that the table of options has checked.
fn one<T: FromStr<Err: Display>>(text: &str) -> T {
    match text.parse() {
        Ok(value) => value,
        Err(why) => unreachable!("{why}, and yet it was understood"),
    }
}

fn understood<T: FromStr<Err: Display>>(entries: &[String]) -> Vec<T> {
    entries.iter().map(|entry| one(entry)).collect()
}

/// The store's options.
pub(crate) fn store_options(resolved: &Resolved) -> Options {
    Options {
        spill_threshold_bytes: resolved.number("storage.spill_threshold"),
        staging_budget_bytes: resolved.count("storage.staging_budget"),
        read_budget_bytes: resolved.count("storage.read_budget"),
        shared_segment_bytes: resolved.number("storage.shared_segment_size"),
        open_files_max: resolved.count("storage.open_files"),
        delta_budget_bytes: resolved.count("storage.delta_budget"),
        journal_file_bytes: resolved.number("storage.journal_file_size"),
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

    /// Guards: the repositories that are named are those that the registry treats differently.
    #[test]
    fn sparse_repositories_reach_the_registry() {
        let variable = ("TONNAGE_SPARSE_REPOSITORIES".into(), "a,b/*".into());
        let resolved = resolve::resolve(raw::read(&ConfigFlags::default(), [variable].into_iter()));
        let sparse = server_options(&resolved).limits.sparse;
        let shown: Vec<_> = sparse.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", "b/*"]);
    }

    /// Guards: the defaults in the table of options are the libraries' own.
    #[test]
    fn defaults_are_those_of_the_libraries() {
        let resolved = resolve::resolve(raw::read(&ConfigFlags::default(), std::iter::empty()));
        let (ours, theirs) = (server_options(&resolved), ServerOptions::default());
        assert_eq!(
            (ours.listen, ours.admin_listen),
            (theirs.listen, theirs.admin_listen)
        );
        assert_eq!(ours.limits.manifest_bytes, theirs.limits.manifest_bytes);
        assert_eq!(ours.limits.tags_per_push, theirs.limits.tags_per_push);
        assert_eq!(ours.limits.sparse, theirs.limits.sparse);
        assert_eq!(ours.drain, theirs.drain);
        let times = |options: &ServerOptions| {
            let waits = (options.header_timeout, options.body_idle_timeout);
            (waits, options.manifest_timeout, options.unread_timeout)
        };
        assert_eq!(times(&ours), times(&theirs));
        let bounds = |options: &ServerOptions| {
            let bytes = (options.manifest_budget_bytes, options.chunk_min_bytes);
            (bytes, options.connections_max, options.http2.clone())
        };
        assert_eq!(bounds(&ours), bounds(&theirs));
        assert_eq!(ours.mirror_of, theirs.mirror_of);
        assert_eq!(ours.hostnames, theirs.hostnames);
        assert_eq!(ours.locations, theirs.locations);
        assert_eq!(store_options(&resolved), Options::default());
    }
}
