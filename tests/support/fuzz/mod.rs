//! The fuzz targets: functions from any bytes to nothing, or to a panic.
//!
//! Owns: [`TARGETS`] with their memory limits, and their bodies. The fuzzer (`tests/fuzz`) generates inputs, and `cargo
//! test` replays the stored ones (`tests/fuzz/corpus`, `tests/fuzz/found`).
//! Refuses: randomness, time, and state that survives an input: the same bytes always have the same result.
//!
//! | module | decodes |
//! |---|---|
//! | [`words`] [`ranges`] [`request`] [`manifest`] [`credentials`] [`tokens`] [`scopes`] | what a client sends |
//! | [`headers`] [`journal`] [`upload`] [`run`](mod@run) [`rows`] | structures on disk |
//! | [`store`] | a whole store with some bytes changed |
//!
//! `go_json` reads a manifest as Go does, for comparison. [`opened`] builds a store around a structure.
//!
//! A checksum that a fuzzer would have to guess protects each decoder of bytes on disk. So each of these targets can
//! compute the right checksums of its input ([`seal`]), and the input decides whether it does.

pub mod credentials;
pub mod go_json;
pub mod headers;
pub mod input;
pub mod journal;
pub mod manifest;
pub mod opened;
pub mod ranges;
pub mod request;
pub mod rows;
pub mod run;
pub mod scopes;
pub mod seal;
pub mod store;
pub mod tokens;
pub mod upload;
pub mod words;

/// A function that accepts any bytes, with its memory limit.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name, also of its folder of inputs.
    pub name: &'static str,
    /// Runs one input. A panic is a finding.
    pub run: fn(&[u8]),
    /// The memory that it may hold at once, for any input.
    pub memory_bytes: usize,
    /// Additional memory for each byte of the input.
    pub memory_per_byte: usize,
}

impl Target {
    /// Returns the memory that it may hold at once for an input of `bytes`.
    pub fn memory_for(&self, bytes: usize) -> usize {
        self.memory_bytes + bytes * self.memory_per_byte
    }
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target {
        name,
        run,
        memory_bytes: 64 << 10,
        memory_per_byte: 64,
    }
}

/// All targets; those whose input any client can send come first.
pub const TARGETS: [Target; 13] = [
    target("words", words::run),
    target("ranges", ranges::run),
    target("request", request::run),
    // A list of descriptors takes several times its bytes (`docs/evidence.md`, "The largest manifest").
    target("manifest", manifest::run),
    target("credentials", credentials::run),
    target("scopes", scopes::run),
    Target {
        // The keys, which the first input makes.
        memory_bytes: 1 << 20,
        ..target("tokens", tokens::run)
    },
    target("headers", headers::run),
    Target {
        // An open store, and a block of 4 KiB for each frame that is built.
        memory_bytes: 64 << 20,
        ..target("journal", journal::run)
    },
    target("upload", upload::run),
    Target {
        // An open store, and the file in its pages.
        memory_bytes: 64 << 20,
        ..target("run", run::run)
    },
    target("rows", rows::run),
    Target {
        // An open store: its buffers, its caches, the journal files that it reads whole, and a report for each finding.
        memory_bytes: 64 << 20,
        ..target("store", store::run)
    },
];
