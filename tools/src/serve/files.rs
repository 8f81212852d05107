//! The limit of open files, and its division among connections and blobs.
//!
//! Owns: raising the soft limit, which is 1024 by default because of programs that use `select`; and the shares of
//! connections and blobs if the hard limit is too low.
//! Refuses: exceeding the hard limit, and changing what the operator set. If these contradict each other, the server
//! does not start.
//!
//! Invariant: all that may be open at once is within the limit, so no client can use up the descriptors of others.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tonnage_engine::DESCRIPTORS_BESIDE_BLOBS;
use tonnage_server::{ADMIN_CONNECTIONS_MAX, connections_waiting_max};

use crate::exit::Exit;
use crate::failure::Failure;

/// Standard streams (3), the runtime (4), signals (3), listeners (3).
const PROCESS_FILES: usize = 3 + 4 + 3 + 3;
/// Connections of online commands at a time; others wait to be accepted.
const ADMIN_CONNECTIONS: usize = 4;
/// Descriptors for everything but connections and blobs.
const FIXED: usize = PROCESS_FILES + ADMIN_CONNECTIONS + DESCRIPTORS_BESIDE_BLOBS;
/// Least number of connections with which a client of HTTP/1.1 works.
const CONNECTIONS_MIN: usize = 4;
/// Least number of files that the store accepts.
const BLOBS_MIN: usize = 8;

/// The shares of connections and blobs in the limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections to the registry; the admin listener has as many, but at most 64.
    pub(super) connections: Share,
    /// Segments and logs of uploads.
    pub(super) blobs: Share,
}

/// One share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// The number of files.
    pub(super) count: usize,
    /// Whether the operator set it.
    pub(super) is_set: bool,
}

impl Shares {
    /// Returns how many files may be open at once.
    pub(super) fn needed(&self) -> usize {
        FIXED + connections_with_admin(self.connections.count) + self.blobs.count
    }

    /// Reduces the shares that the operator did not set, so that all fit within `allowed`.
    pub(super) fn within(self, allowed: usize) -> Result<Self, Failure> {
        let needed = self.needed();
        if needed <= allowed {
            return Ok(self);
        }
        let mut shares = self;
        let room = allowed.saturating_sub(FIXED);
        if !self.connections.is_set {
            // A third, as with the defaults, or what the blobs leave.
            let blobs = if self.blobs.is_set {
                self.blobs.count
            } else {
                room - room / 3
            };
            let both = room.saturating_sub(blobs);
            let fewer = (CONNECTIONS_MIN..=self.connections.count).rev();
            let mut fitting =
                fewer.filter(|connections| connections_with_admin(*connections) <= both);
            shares.connections.count = fitting.next().unwrap_or(CONNECTIONS_MIN);
        }
        if !self.blobs.is_set {
            let blobs = room.saturating_sub(connections_with_admin(shares.connections.count));
            shares.blobs.count = blobs.clamp(BLOBS_MIN, self.blobs.count);
        }
        if shares.needed() > allowed {
            return Err(too_few(&self, allowed, self.least().needed()));
        }
        tracing::warn!(
            allowed,
            needed,
            connections = shares.connections.count,
            blobs = shares.blobs.count,
            "the limit of open files is too low for limits.connections = {} and storage.open_files = {}, so both are reduced; raise it (ulimit -Hn, LimitNOFILE=) to {needed}, or set these options lower",
            self.connections.count,
            self.blobs.count,
        );
        Ok(shares)
    }

    /// Returns the shares that the operator set, and the minimum of the others.
    fn least(self) -> Self {
        Self {
            connections: self.connections.or_least(CONNECTIONS_MIN),
            blobs: self.blobs.or_least(BLOBS_MIN),
        }
    }
}

impl Share {
    fn or_least(self, least: usize) -> Self {
        let count = if self.is_set {
            self.count
        } else {
            self.count.min(least)
        };
        Self { count, ..self }
    }
}

/// Returns the connections of the registry and of the admin listener, with those that wait for a slot.
fn connections_with_admin(connections: usize) -> usize {
    let with_waiting = |connections| connections + connections_waiting_max(connections);
    with_waiting(connections) + with_waiting(connections.min(ADMIN_CONNECTIONS_MAX))
}

fn too_few(wanted: &Shares, allowed: usize, least: usize) -> Failure {
    let (connections, blobs) = (wanted.connections, wanted.blobs);
    let origin = |share: Share| if share.is_set { "set" } else { "the default" };
    let what = format!(
        "the system allows {allowed} open files, but the server needs at least {least}: limits.connections is {} ({}), storage.open_files is {} ({}), {FIXED} are for the rest",
        connections.count,
        origin(connections),
        blobs.count,
        origin(blobs),
    );
    let failure = Failure::new(Exit::Disk, what).hint(format!(
        "raise the limit: ulimit -Hn {least} for this user, LimitNOFILE={least} for a service, --ulimit nofile={least} for a container"
    ));
    if connections.is_set || blobs.is_set {
        return failure.hint("or set limits.connections or storage.open_files lower");
    }
    failure
}

/// Descriptors beyond the limit, for files that wait to be closed.
pub(super) const SLACK: usize = 256;

/// Raises the soft limit to `needed` open files, or as far as the system allows. Returns the new limit.
pub(super) fn allow(needed: usize) -> usize {
    let found = getrlimit(Resource::Nofile);
    let count = |limit: Option<u64>| {
        limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        })
    };
    let (had, hard) = (count(found.current), count(found.maximum));
    let wanted = needed.min(hard);
    if had >= wanted {
        return had;
    }
    let raised = Rlimit {
        current: Some(wanted as u64),
        maximum: found.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, files = had, "the limit of open files could not be raised; see ulimit -n");
            had
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(connections: (usize, bool), blobs: (usize, bool)) -> Shares {
        let share = |(count, is_set)| Share { count, is_set };
        Shares {
            connections: share(connections),
            blobs: share(blobs),
        }
    }

    /// Guards: the shares never exceed the limit and use nearly all of it; what the operator set is not changed.
    #[test]
    fn what_may_be_open_is_what_is_allowed() {
        let defaults = shares((4096, false), (8192, false));
        let mut refused = 0;
        for allowed in (1..2000).chain([4096, 10_000, 15_000, 1 << 20]) {
            for wanted in [
                defaults,
                shares((100, true), (8192, false)),
                shares((4096, false), (100, true)),
                shares((100, true), (100, true)),
            ] {
                let Ok(found) = wanted.within(allowed) else {
                    refused += 1;
                    assert!(allowed < wanted.least().needed(), "{allowed} {wanted:?}");
                    continue;
                };
                assert!(found.needed() <= allowed, "{allowed}: {found:?}");
                assert!(
                    found == wanted || found.needed() + 3 >= allowed,
                    "{allowed}: {found:?}"
                );
                for (found, wanted) in [
                    (found.connections, wanted.connections),
                    (found.blobs, wanted.blobs),
                ] {
                    assert!(!wanted.is_set || found == wanted, "{allowed}: {found:?}");
                }
            }
        }
        assert!(refused > 100);
        assert_eq!(defaults.within(15_000).unwrap(), defaults);
        defaults.within(144).unwrap();
    }

    /// Guards: a soft limit below the hard one does not limit the server.
    #[test]
    fn the_soft_limit_is_raised() {
        let found = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(200),
            maximum: found.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(allow(300), 300, "{found:?}");
        assert_eq!(getrlimit(Resource::Nofile).current, Some(300));
    }
}
