//! Every bound in the engine, with the arithmetic that relates them.
//!
//! Owns: constants only. Formats cite them; `const` asserts keep them consistent.

/// Payload bytes covered by one checksum.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Largest single read for a client, in bytes.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Least memory for reads, in bytes.
pub const READ_BUDGET_BYTES_MIN: usize = 4 * READ_BYTES_MAX;
/// Unit in which journal frames are written and padded. A torn write does not affect the next block.
pub const JOURNAL_BLOCK_BYTES: usize = 4 << 10;
/// Least number of bytes that a drive writes as a whole. A torn write has some of these units and not others.
pub const DRIVE_SECTOR_BYTES: usize = 512;
/// Largest payload after a leading frame: its checksum table is read with the frame, in one buffer.
pub const LEADING_PAYLOAD_BYTES_MAX: u64 = 1 << 30;
/// Largest journal file: it is read as a whole.
pub const JOURNAL_FILE_BYTES_MAX: u64 = 4 << 30;
/// Largest payload of one journal frame: one transaction of the largest manifest (4 MiB of JSON holds
/// fewer than 40 000 descriptors of about 100 encoded bytes), with room to spare.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Payload in bytes at which no more transactions are added to a frame.
pub const FRAME_PAYLOAD_BYTES_TARGET: usize = 256 << 10;
/// Most transactions of one frame. The LSN jumps by this number at every open, so that the LSNs of a lost frame stay
/// unused.
pub const FRAME_TRANSACTIONS_MAX: usize = 4096;
/// Content of up to this many bytes may be put in one piece, whatever the threshold of large blobs is: a manifest.
pub const SMALL_CONTENT_BYTES: u64 = 4 << 20;
/// Most children of one manifest.
pub const MANIFEST_CHILDREN_MAX: usize = 65_536;
/// Most bytes of the opaque attributes of one manifest (media type, artifact type).
pub const MANIFEST_ATTRIBUTES_BYTES_MAX: usize = 4096;
/// Most bytes of a repository's name (distribution-spec: host and name together at most 255).
pub const REPOSITORY_NAME_BYTES_MAX: usize = 255;
/// Most bytes of a tag (distribution-spec grammar: 1 + 127).
pub const TAG_BYTES_MAX: usize = 128;
/// Largest LSN, epoch, file number, id, offset or length on disk (FORMAT.md): far above what a store can reach. The sum
/// of a few of them still fits 64 bits.
pub const COUNTER_MAX: u64 = (1 << 62) - 1;
/// Largest counter of a store that is opened. None can be that old, and further numbers might not be readable.
pub const COUNTER_USED_MAX: u64 = 1 << 61;
/// Most bytes of an actor or request id in a transaction; longer ones are cut.
pub const ORIGIN_BYTES_MAX: usize = 256;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(JOURNAL_BLOCK_BYTES));
const _: () = assert!(FRAME_PAYLOAD_BYTES_TARGET < FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(COUNTER_USED_MAX < COUNTER_MAX && COUNTER_MAX < u64::MAX / 2);
