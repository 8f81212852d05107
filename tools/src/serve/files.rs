//! How many files the process may have open.
//!
//! Owns: raising the soft limit to the hard one. It is 1024 by default for the sake of programs that use `select`; here each
//! connection takes one and each unfinished large upload two, and a journal that finds none left stops all writes.
//! Refuses: the hard limit; the operator has it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for anything; some systems have a hard limit of a billion.
const WANTED: u64 = 1 << 20;

/// Allows as many files as the system does and returns how many that is.
pub(super) fn allow_many() -> u64 {
    let found = getrlimit(Resource::Nofile);
    let had = found.current.unwrap_or(u64::MAX);
    let wanted = found.maximum.map_or(WANTED, |hard| hard.min(WANTED));
    if had >= wanted {
        return had;
    }
    let raised = Rlimit {
        current: Some(wanted),
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

    /// Guards: a soft limit below the hard one does not bound the server.
    #[test]
    fn the_soft_limit_is_raised() {
        let found = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(200),
            maximum: found.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        let allowed = allow_many();
        assert!(allowed > 200, "{found:?}");
        assert_eq!(getrlimit(Resource::Nofile).current, Some(allowed));
    }
}
