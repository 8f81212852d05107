//! Every bound in the engine, with the arithmetic that ties them together.
//!
//! Owns: constants only. Formats cite them; `const` asserts keep them consistent.

/// Payload bytes under one checksum.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Largest single read for a client.
pub const READ_BYTES_MAX: usize = 2 << 20;
/// Unit in which journal frames are written and padded; one torn write never reaches a neighbour's block.
pub const JOURNAL_BLOCK_BYTES: usize = 4 << 10;
/// What a drive writes as a whole, at least: a torn write has some of these and not others.
pub const DRIVE_SECTOR_BYTES: usize = 512;
/// Largest payload behind a leading frame: its checksum table is read with the frame, in one buffer.
pub const LEADING_PAYLOAD_BYTES_MAX: u64 = 1 << 30;
/// Largest journal file: it is read as a whole.
pub const JOURNAL_FILE_BYTES_MAX: u64 = 4 << 30;
/// Largest payload of one journal frame: one transaction of the largest manifest (4 MiB of JSON holds
/// fewer than 40 000 descriptors of about 100 encoded bytes), with room to spare.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Payload at which a frame stops taking in more transactions.
pub const FRAME_PAYLOAD_BYTES_TARGET: usize = 256 << 10;
/// Transactions in one frame. The LSN jumps by this much at every open, so a lost frame's LSNs stay unused.
pub const FRAME_TRANSACTIONS_MAX: usize = 4096;
/// Content of this many bytes may be put in one piece whatever the threshold of large blobs is: a manifest.
pub const SMALL_CONTENT_BYTES: u64 = 4 << 20;
/// Children of one manifest.
pub const MANIFEST_CHILDREN_MAX: usize = 65_536;
/// Opaque attributes of one manifest (media type, artifact type).
pub const MANIFEST_ATTRIBUTES_BYTES_MAX: usize = 4096;
/// Bytes of a repository's name (distribution-spec: host and name together at most 255).
pub const REPOSITORY_NAME_BYTES_MAX: usize = 255;
/// Bytes of a tag (distribution-spec grammar: 1 + 127).
pub const TAG_BYTES_MAX: usize = 128;
/// Largest LSN, epoch, number of a file, id, offset or length on disk (FORMAT.md): far above what a store can reach, and a few of
/// them added up still fit 64 bits.
pub const COUNTER_MAX: u64 = (1 << 62) - 1;
/// A store that has counted this far is not gone on with: none is that old, and what would be written next could not be read.
pub const COUNTER_USED_MAX: u64 = 1 << 61;
/// Bytes of an actor or request id in a transaction; longer ones are cut.
pub const ORIGIN_BYTES_MAX: usize = 256;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(JOURNAL_BLOCK_BYTES));
const _: () = assert!(FRAME_PAYLOAD_BYTES_TARGET < FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(COUNTER_USED_MAX < COUNTER_MAX && COUNTER_MAX < u64::MAX / 2);
