//! What is fuzzed: one function a target, from any bytes to nothing or a panic.
//!
//! Owns: [`TARGETS`], with the bounds that each is held to, and their bodies. The fuzzer (`tests/fuzz`) makes inputs up and
//! `cargo test` replays those that were kept (`tests/fuzz/corpus`, `tests/fuzz/found`).
//! Refuses: randomness, time, and state from one input to the next: the same bytes do the same thing every time.
//!
//! | module | decodes |
//! |---|---|
//! | [`words`] [`ranges`] [`request`] [`manifest`] | what a client sends |
//! | [`headers`] [`journal`] [`upload`] [`run`](mod@run) [`rows`] | what lies on the disk, structure by structure |
//! | [`store`] | a whole store with some of its bytes changed |
//!
//! `go_json` is what Go's reader makes of a manifest, to compare with; [`opened`] puts a store around a structure.
//!
//! A decoder of disk bytes stands behind a checksum that a fuzzer would have to guess. So each of these targets can put the right
//! checksums into what it was given ([`seal`]), and the input says whether it does.

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
pub mod seal;
pub mod store;
pub mod upload;
pub mod words;

/// Something that takes any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder of inputs.
    pub name: &'static str,
    /// Takes one input. A panic is a finding.
    pub run: fn(&[u8]),
    /// Memory that it may hold at once, whatever the input is.
    pub memory_bytes: usize,
    /// And in addition for each byte of the input.
    pub memory_per_byte: usize,
}

impl Target {
    /// Memory that it may hold at once for an input of `bytes`.
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

/// All of them, those that anybody can reach first.
pub const TARGETS: [Target; 10] = [
    target("words", words::run),
    target("ranges", ranges::run),
    target("request", request::run),
    // A list of descriptors takes several times its bytes; `ARCHITECTURE.md`, "The largest manifest".
    target("manifest", manifest::run),
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
