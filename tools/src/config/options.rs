//! The table of all options.
//!
//! Owns: [`OPTIONS`], from which flags, variables, keys of the file, `config show` and the help are made.
//! Refuses: any of those being written down a second time.
//!
//! Invariants (tested): keys are unique, every default is a value of its option, and no variable begins
//! with what Kubernetes injects for a service named `tonnage`.

use crate::config::value::{Entry, Kind};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const HOUR_MS: u64 = 3_600_000;

/// One option.
#[derive(Debug)]
pub(crate) struct OptionSpec {
    /// Key in the file; a dot separates the table from the key in it.
    pub(crate) key: &'static str,
    /// What its values look like.
    pub(crate) kind: Kind,
    /// The default, as it would be typed.
    pub(crate) default: &'static str,
    /// Whether its value is never shown.
    pub(crate) secret: bool,
    /// One line of help.
    pub(crate) help: &'static str,
}

impl OptionSpec {
    /// Name of the environment variable: `TONNAGE_STORAGE_SPILL_THRESHOLD`.
    pub(crate) fn variable(&self) -> String {
        format!(
            "TONNAGE_{}",
            self.key.replace('.', "_").to_ascii_uppercase()
        )
    }

    /// Name of the flag, without the dashes: `storage-spill-threshold`.
    pub(crate) fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }
}

const fn option(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec {
        key,
        kind,
        default,
        secret: false,
        help,
    }
}

/// Every option there is.
pub(crate) static OPTIONS: &[OptionSpec] = &[
    option(
        "data",
        Kind::Path,
        "./tonnage-data",
        "Directory of the store; created if it is not there",
    ),
    option(
        "listen",
        Kind::Address,
        "127.0.0.1:5000",
        "Address of the registry",
    ),
    option(
        "admin_listen",
        Kind::AddressOrOff,
        "127.0.0.1:5001",
        "Address of /metrics, /healthz and /readyz, or off",
    ),
    option(
        "insecure_anonymous",
        Kind::Switch,
        "false",
        "Let anybody who reaches a non-loopback address push, pull and delete",
    ),
    option(
        "sparse_repositories",
        Kind::List(Entry::Repository),
        "none",
        "Repositories whose manifests may list content that is not there: names, prefix/* for all below, * for all",
    ),
    option(
        "mirror_of",
        Kind::List(Entry::Registry),
        "none",
        "Registries whose content is mirrored here: a pull with ?ns= of another gets 404; none ignores ns",
    ),
    option(
        "hostnames",
        Kind::List(Entry::Hostname),
        "none",
        "Hosts under which clients reach the registry; on loopback others than these and loopback's own are refused, * for any",
    ),
    option(
        "locations",
        Kind::Locations,
        "relative",
        "How Location is written: relative; request, for http:// and the host of the request; or with a URL such as https://registry.example",
    ),
    option(
        "drain_timeout",
        Kind::Duration {
            min_ms: 0,
            max_ms: 86_400_000,
        },
        "30s",
        "How long requests in flight may take to end after SIGTERM",
    ),
    option(
        "worker_threads",
        Kind::Threads,
        "auto",
        "Threads that run requests; auto is one for each core",
    ),
    option(
        "io",
        Kind::Choice(&["auto", "threads"]),
        "auto",
        "Backend for reading and writing files",
    ),
    option(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "Least severe message that is logged",
    ),
    option(
        "log.format",
        Kind::Choice(&["text", "json"]),
        "text",
        "How log lines are written",
    ),
    option(
        "limits.manifest_bytes",
        Kind::Size {
            min: 64 * KIB,
            max: 4 * MIB,
        },
        "4 MiB",
        "Largest manifest that is accepted",
    ),
    option(
        "limits.manifest_memory",
        Kind::Size {
            min: 8 * MIB,
            max: 4 * GIB - 1,
        },
        "64 MiB",
        "Memory for the bodies of manifests that are being pushed; more wait their turn, but a quarter is for small ones",
    ),
    option(
        "limits.chunk_min",
        Kind::Size { min: 0, max: TIB },
        "0 B",
        "Shortest chunk of an upload that clients are asked for, as advice; 0 B asks for none",
    ),
    option(
        "limits.connections",
        Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        "4096",
        "Connections at a time; then an idle one leaves for a new one. Fewer where the system allows too few open files, unless this is set",
    ),
    option(
        "limits.tags_per_push",
        Kind::Count { min: 10, max: 1000 },
        "64",
        "Most tags that one manifest push may set",
    ),
    option(
        "limits.uploads",
        Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        "10000",
        "Unfinished uploads at a time, in all repositories together; idle ones give way",
    ),
    option(
        "timeouts.header",
        Kind::Duration {
            min_ms: 1000,
            max_ms: HOUR_MS,
        },
        "1m40s",
        "How long a connection may ask for nothing, or take over the head of a request",
    ),
    option(
        "timeouts.body_idle",
        Kind::Duration {
            min_ms: 1000,
            max_ms: HOUR_MS,
        },
        "5m",
        "How long a client may keep silent inside a body",
    ),
    option(
        "timeouts.manifest",
        Kind::Duration {
            min_ms: 1000,
            max_ms: HOUR_MS,
        },
        "2m",
        "How long a whole manifest may take to arrive, and to wait for its memory",
    ),
    option(
        "timeouts.unread",
        Kind::Duration {
            min_ms: 1000,
            max_ms: 24 * HOUR_MS,
        },
        "5m",
        "How long a client may leave an answer unread",
    ),
    option(
        "http2.streams",
        Kind::Count {
            min: 1,
            max: 10_000,
        },
        "128",
        "Requests at a time on one HTTP/2 connection",
    ),
    option(
        "http2.stream_window",
        Kind::Size {
            min: 64 * KIB,
            max: GIB,
        },
        "1 MiB",
        "What one HTTP/2 request may send before it was read",
    ),
    option(
        "http2.connection_window",
        Kind::Size {
            min: 64 * KIB,
            max: GIB,
        },
        "4 MiB",
        "What all requests of an HTTP/2 connection may send before it was read",
    ),
    option(
        "http2.header_bytes",
        Kind::Size {
            min: 16 * KIB,
            max: 16 * MIB,
        },
        "64 KiB",
        "Largest head of an HTTP/2 request; 1024 byte ranges take 23 KB",
    ),
    option(
        "storage.spill_threshold",
        Kind::Size {
            min: 64 * KIB,
            max: 64 * MIB,
        },
        "8 MiB",
        "Blobs larger than this get a segment of their own",
    ),
    option(
        "storage.staging_budget",
        Kind::Size {
            min: 2 * MIB,
            max: TIB,
        },
        "64 MiB",
        "Memory for all uploads that have not spilled yet",
    ),
    option(
        "storage.read_budget",
        Kind::Size {
            min: 4 * MIB,
            max: TIB,
        },
        "64 MiB",
        "Memory for all reads at a time",
    ),
    option(
        "storage.shared_segment_size",
        Kind::Size {
            min: 16 * MIB,
            max: 4 * GIB,
        },
        "256 MiB",
        "Size at which a shared segment is sealed",
    ),
    option(
        "storage.open_files",
        Kind::Count {
            min: 8,
            max: 1_000_000,
        },
        "8192",
        "Files of blobs open at a time. Fewer where the system allows too few open files, unless this is set",
    ),
    option(
        "storage.journal_file_size",
        Kind::Size {
            min: 16 * MIB,
            max: 4 * GIB,
        },
        "16 MiB",
        "Size at which the next journal file is begun",
    ),
    option(
        "storage.delta_budget",
        Kind::Size {
            min: MIB,
            max: 64 * GIB,
        },
        "32 MiB",
        "Memory of changes since the last checkpoint at which the next one begins",
    ),
    option(
        "storage.upload_ttl",
        Kind::Duration {
            min_ms: 60_000,
            max_ms: 365 * 86_400_000,
        },
        "1d",
        "How long an unfinished upload is kept after its last byte",
    ),
    option(
        "storage.lease_grace",
        Kind::Duration {
            min_ms: 60_000,
            max_ms: 365 * 86_400_000,
        },
        "1h",
        "How long content that nothing refers to is kept after it was promised",
    ),
];

/// The option of a key.
pub(crate) fn find(key: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a default that is itself refused, or two options under one name.
    #[test]
    fn the_table_is_consistent() {
        for (place, option) in OPTIONS.iter().enumerate() {
            assert!(option.kind.parse(option.default).is_ok(), "{}", option.key);
            assert!(
                OPTIONS
                    .iter()
                    .skip(place + 1)
                    .all(|other| other.flag() != option.flag())
            );
        }
    }

    /// Guards: Kubernetes injects `TONNAGE_PORT*` and `TONNAGE_SERVICE_*` for a service of that name.
    #[test]
    fn no_option_takes_a_name_that_kubernetes_injects() {
        for option in OPTIONS {
            let variable = option.variable();
            assert!(!variable.starts_with("TONNAGE_PORT"), "{variable}");
            assert!(!variable.starts_with("TONNAGE_SERVICE_"), "{variable}");
            assert!(!variable.starts_with("TONNAGE_TEST_"), "{variable}");
        }
    }
}
