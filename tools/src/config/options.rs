//! All options: their keys, types, limits, help and fields.
//!
//! Owns: [`Config`] and the declaration of each option. The default is the value of the field before it is read, which
//! is usually the library's.
//!
//! Invariant: no variable begins with a prefix that Kubernetes sets for a service named `tonnage`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonnage_engine::Options;
use tonnage_engine::io::page_cache_bytes;
use tonnage_server::ServerOptions;
use tonnage_server::access::{AccessOptions, OwnUsers};

use crate::config::kind::{
    address, address_or_off, certified_hosts, count, duration, file_or_none, hosts, https_url,
    locations, mail_or_none, name_kinds, path, registries, repositories, size, size_or_auto,
    switch, threads, untagged_rules, word,
};
use crate::config::reader::{OptionInfo, Reader};
use crate::config::tls::TlsConfig;
use crate::config::untagged::{self, UntaggedRule};
use crate::exit::Exit;
use crate::failure::Failure;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const PIB: u64 = 1 << 50;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(365 * 24);

/// Who may do what.
#[derive(Debug, Default)]
pub(crate) struct AuthConfig {
    /// Whether credentials are asked for.
    pub(crate) enabled: bool,
    /// Users beside the registry's own.
    pub(crate) htpasswd: Option<PathBuf>,
    /// Access rules.
    pub(crate) rules: Option<PathBuf>,
}

impl AuthConfig {
    /// Returns where users and rules are, for a server with its data in `data`.
    pub(crate) fn access_options(&self, data: &Path) -> AccessOptions {
        AccessOptions {
            own: OwnUsers::of(data),
            htpasswd: self.htpasswd.clone(),
            rules: self.rules.clone(),
        }
    }
}

/// A configuration.
#[derive(Debug)]
pub(crate) struct Config {
    /// Directory of the store, as it was typed.
    data: PathBuf,
    /// Whether anyone may use a server that does not listen on loopback.
    pub(crate) insecure_anonymous: bool,
    /// Threads that run requests; `None` for one on each core.
    pub(crate) worker_threads: Option<usize>,
    /// Backend for files.
    pub(crate) io: &'static str,
    /// Least severe message that is logged.
    pub(crate) log_level: &'static str,
    /// Format of log lines.
    pub(crate) log_format: &'static str,
    /// How connections are encrypted.
    pub(crate) tls: TlsConfig,
    /// Who may do what.
    pub(crate) auth: AuthConfig,
    /// The server's options.
    pub(crate) server: ServerOptions,
    /// The store's options.
    pub(crate) store: Options,
    /// Which repositories remove untagged manifests; a part of the store's options.
    untagged: Vec<UntaggedRule>,
    /// Whether the operator set the number of connections.
    pub(crate) connections_set: bool,
    /// Whether the operator set the number of open files.
    pub(crate) open_files_set: bool,
}

/// Returns all options with their defaults.
pub(crate) fn all() -> Vec<OptionInfo> {
    let mut reader = Reader::default();
    Config::read(&mut reader);
    reader.options
}

impl Config {
    /// Reads all options.
    pub(crate) fn read(reader: &mut Reader) -> Self {
        let mut config = Self {
            data: PathBuf::from("./tonnage-data"),
            insecure_anonymous: false,
            worker_threads: None,
            io: "auto",
            log_level: "info",
            log_format: "text",
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
            server: ServerOptions::default(),
            store: Options {
                page_cache_bytes: page_cache_bytes(),
                ..Options::default()
            },
            untagged: Vec::new(),
            connections_set: false,
            open_files_set: false,
        };
        config.read_general(reader);
        config.read_tls(reader);
        config.read_auth(reader);
        config.read_log(reader);
        config.read_limits(reader);
        config.read_timeouts(reader);
        config.read_http2(reader);
        config.read_storage(reader);
        config.store.untagged = untagged::policy(&config.untagged);
        config.connections_set = reader.is_set("limits.connections");
        config.open_files_set = reader.is_set("storage.open_files");
        config
    }

    /// Returns the absolute directory of the store, because printed commands must work in any directory.
    pub(crate) fn data(&self) -> Result<PathBuf, Failure> {
        std::path::absolute(&self.data).map_err(|error| {
            let path = self.data.display();
            Failure::new(
                Exit::Disk,
                format!("the absolute path of {path} could not be determined: {error}"),
            )
        })
    }
}

/// The declaration of each option: its key, its field, its kind with limits, and its help.
#[rustfmt::skip]
impl Config {
    fn read_general(&mut self, reader: &mut Reader) {
        let server = &mut self.server;
        reader.read("data", &mut self.data, path(),
            "Directory of the store; created if it does not exist");
        reader.read("listen", &mut server.listen, address(),
            "Address of the registry");
        reader.read("admin_listen", &mut server.admin_listen, address_or_off(),
            "Address of /metrics, /healthz and /readyz, or off");
        reader.read("insecure_anonymous", &mut self.insecure_anonymous, switch(),
            "Let anyone who reaches a non-loopback address push, pull and delete");
        reader.read("sparse_repositories", &mut server.limits.sparse, repositories(),
            "Repositories whose manifests may list content that does not exist: names, prefix/* for all below, * for all");
        reader.read("mirror_of", &mut server.mirror_of, registries(),
            "Registries whose content is mirrored here: a pull with ?ns= of another is answered 404; none ignores ns");
        reader.read("hostnames", &mut server.hostnames, hosts(),
            "Hosts under which clients reach the registry; on loopback, all but these and loopback hosts are rejected; * for any");
        reader.read("locations", &mut server.locations, locations(),
            "Form of Location headers: relative; request, for the scheme and the host of the request; or a URL such as https://registry.example");
        reader.read("drain_timeout", &mut server.drain, duration(Duration::ZERO..=DAY),
            "How long requests in flight may take to end after SIGTERM");
        reader.read("worker_threads", &mut self.worker_threads, threads(),
            "Threads that run requests; auto is one for each core");
        reader.read("io", &mut self.io, word(&["auto", "threads", "io_uring"]),
            "Backend for reading and writing files; auto is io_uring for what it does faster, if it works here, and threads for everything else");
    }

    fn read_tls(&mut self, reader: &mut Reader) {
        let tls = &mut self.tls;
        reader.read("tls.mode", &mut tls.mode, word(&["auto", "off", "self", "files", "acme"]),
            "Encrypt connections: with a certificate of an own authority, made for hostnames (self), with the one in tls.cert (files), or with one that is fetched (acme); auto is files if tls.cert is set, acme if tls.acme is, else off");
        reader.read("tls.cert", &mut tls.cert, file_or_none(),
            "Certificate in PEM form, followed by those of intermediate authorities; read again when it changes");
        reader.read("tls.key", &mut tls.key, file_or_none(),
            "Private key of tls.cert in PEM form");
        reader.read("tls.acme", &mut tls.acme, certified_hosts(),
            "Names and IP addresses for which a certificate is fetched from Let's Encrypt or tls.acme_directory, which connects to port 443 of each; agrees to the terms of that authority");
        reader.read("tls.acme_directory", &mut tls.acme_directory, https_url(),
            "Directory of the authority from which certificates are fetched (ACME)");
        reader.read("tls.acme_ca", &mut tls.acme_ca, file_or_none(),
            "File with authorities to trust for tls.acme_directory, beside those of the system, in PEM form");
        reader.read("tls.acme_contact", &mut tls.acme_contact, mail_or_none(),
            "Address to which that authority may send mail; used when the account is made");
        reader.read("tls.prefer", &mut tls.prefer, word(&["http2", "http1"]),
            "Protocol for clients that speak both");
        reader.read("tls.client_ca", &mut tls.client_ca, file_or_none(),
            "File with authorities whose client certificates are accepted, in PEM form; the name in one is the user of requests without credentials; read again when it changes");
        reader.read("tls.client_names", &mut tls.client_names, name_kinds(),
            "Which name of a client certificate counts, the first that it has: a URI such as a SPIFFE id (uri), a DNS name (dns), the common name (cn)");
        reader.read("tls.admin", &mut self.server.admin_tls, switch(),
            "Encrypt connections to admin_listen, too");
    }

    fn read_auth(&mut self, reader: &mut Reader) {
        let auth = &mut self.auth;
        reader.read("auth.enabled", &mut auth.enabled, switch(),
            "Ask for credentials: only users may do anything, and only what access rules allow; admins may do everything");
        reader.read("auth.htpasswd", &mut auth.htpasswd, file_or_none(),
            "File with further users and their bcrypt hashes, as htpasswd -B makes it; read again when it changes");
        reader.read("auth.rules", &mut auth.rules, file_or_none(),
            "File with access rules; read again when it changes; none allows nothing but to admins");
    }

    fn read_log(&mut self, reader: &mut Reader) {
        reader.read("log.level", &mut self.log_level, word(&["error", "warn", "info", "debug", "trace"]),
            "Least severe message that is logged");
        reader.read("log.format", &mut self.log_format, word(&["text", "json"]),
            "Format of log lines");
    }

    fn read_limits(&mut self, reader: &mut Reader) {
        let server = &mut self.server;
        reader.read("limits.manifest_bytes", &mut server.limits.manifest_bytes, size(64 * KIB..=4 * MIB),
            "Largest manifest that is accepted");
        reader.read("limits.manifest_memory", &mut server.manifest_budget_bytes, size(8 * MIB..=4 * GIB - 1),
            "Memory for the bodies of manifests that are being pushed; further ones wait; a quarter is reserved for small ones");
        reader.read("limits.chunk_min", &mut server.chunk_min_bytes, size(0..=TIB),
            "Shortest chunk of an upload that clients should send, as advice; 0 B for no limit");
        reader.read("limits.connections", &mut server.connections_max, count(1..=1_000_000),
            "Most connections at a time; at the limit, an idle one is closed for a new one. Reduced if the system allows too few open files, unless set");
        reader.read("limits.tags_per_push", &mut server.limits.tags_per_push, count(10..=1000),
            "Most tags that one manifest push may set");
        reader.read("limits.uploads", &mut self.store.uploads_max, count(1..=1_000_000),
            "Most unfinished uploads at a time, in all repositories together; at the limit, idle ones are dropped");
    }

    fn read_timeouts(&mut self, reader: &mut Reader) {
        let server = &mut self.server;
        reader.read("timeouts.header", &mut server.header_timeout, duration(SECOND..=HOUR),
            "How long a connection may be idle, or take to send the head of a request");
        reader.read("timeouts.body_idle", &mut server.body_idle_timeout, duration(SECOND..=HOUR),
            "Longest pause of a client inside a body");
        reader.read("timeouts.manifest", &mut server.manifest_timeout, duration(SECOND..=HOUR),
            "How long a whole manifest may take to arrive, and may wait for memory");
        reader.read("timeouts.unread", &mut server.unread_timeout, duration(SECOND..=DAY),
            "How long a client may leave an answer unread");
    }

    fn read_http2(&mut self, reader: &mut Reader) {
        let http2 = &mut self.server.http2;
        reader.read("http2.streams", &mut http2.streams, count(1..=10_000),
            "Most requests at a time on one HTTP/2 connection");
        reader.read("http2.stream_window", &mut http2.stream_window_bytes, size(64 * KIB..=GIB),
            "Bytes that one HTTP/2 request may send before they are read");
        reader.read("http2.connection_window", &mut http2.connection_window_bytes, size(64 * KIB..=GIB),
            "Bytes that all requests of an HTTP/2 connection may send before they are read");
        reader.read("http2.header_bytes", &mut http2.header_bytes, size(16 * KIB..=16 * MIB),
            "Largest head of an HTTP/2 request; 1024 byte ranges take 23 KB");
    }

    fn read_storage(&mut self, reader: &mut Reader) {
        let store = &mut self.store;
        reader.read("storage.spill_threshold", &mut store.spill_threshold_bytes, size(64 * KIB..=64 * MIB),
            "Blobs larger than this get a segment of their own");
        reader.read("storage.staging_budget", &mut store.staging_budget_bytes, size(2 * MIB..=TIB),
            "Memory for all uploads that have no segment of their own yet");
        reader.read("storage.read_budget", &mut store.read_budget_bytes, size(4 * MIB..=TIB),
            "Memory for all reads at a time");
        reader.read("storage.shared_segment_size", &mut store.shared_segment_bytes, size(16 * MIB..=4 * GIB),
            "Size at which a shared segment is sealed");
        reader.read("storage.open_files", &mut store.open_files_max, count(8..=1_000_000),
            "Most files of blobs open at a time. Reduced if the system allows too few open files, unless set");
        reader.read("storage.journal_file_size", &mut store.journal_file_bytes, size(16 * MIB..=4 * GIB),
            "Size at which the next journal file is begun");
        reader.read("storage.delta_budget", &mut store.delta_budget_bytes, size(MIB..=64 * GIB),
            "Memory of changes since the last checkpoint at which the next one begins");
        reader.read("storage.free_space_min", &mut store.free_space_min_bytes, size_or_auto(0..=PIB),
            "Free space below which pushes are refused; pulls and deletes still work; auto is a twentieth of the file system, at most 1 GiB; 0 B for none");
        reader.read("storage.upload_ttl", &mut store.upload_ttl, duration(MINUTE..=YEAR),
            "How long an unfinished upload is kept after its last byte");
        reader.read("scrub.rate", &mut store.scrub_bytes_per_second, size(0..=TIB),
            "Bytes in a second that are read to find damaged content; 0 B for none");
        reader.read("scrub.every", &mut store.scrub_every, duration(MINUTE..=YEAR),
            "Time from one reading of all content to the next, if the rate suffices");
        reader.read("scrub.digests_every", &mut store.scrub_digests_every, duration(MINUTE..=YEAR),
            "The same for a reading that computes all digests");
        reader.read("collection.manual", &mut store.collection_manual, switch(),
            "Collect garbage only when `tonnage collect` asks for it");
        reader.read("collection.grace", &mut store.collection_grace, duration(SECOND..=YEAR),
            "How long content that nothing references is kept: after an answer promised it, and after its last reference was removed");
        reader.read("collection.untagged", &mut self.untagged, untagged_rules(),
            "Which repositories remove untagged manifests, and after how long: PATTERN=DURATION or PATTERN=keep, the first match counts; at least collection.grace");
        reader.read("compaction.rate", &mut store.compaction_rate_bytes, size(0..=TIB),
            "Bytes per second that compaction reads and writes in the background; 0: only on request");
    }
}
