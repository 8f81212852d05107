//! Bytes on disk to structs and back. Pure: no I/O, no clock, nothing remembered.
//!
//! Owns: one file per structure of FORMAT.md. Refuses: deciding what a bad structure means; decoding says what does not
//! hold, callers know whether that is torn or corrupt.
//!
//! Invariant: no input makes a decoder panic or allocate more than the input's own size.

pub mod checkpoint;
pub mod checksum;
pub mod codec;
pub mod journal;
pub mod keys;
pub mod mark;
pub mod record;
pub mod row;
pub mod run;
pub mod scan;
pub mod segment;
pub mod superblock;
pub mod transaction;
pub mod upload_log;
