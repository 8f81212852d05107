//! Encoders and decoders of every structure on disk. Pure: no I/O, no clock, no state.
//!
//! Owns: one file per structure of FORMAT.md. Refuses: judging a structure that does not decode. A decoder reports what
//! is wrong; its caller decides whether that is torn or corrupt.
//!
//! Invariant: no input makes a decoder panic or allocate more than the input's own size.

pub mod checkpoint;
pub mod checksum;
pub mod codec;
pub mod journal;
pub mod keys;
pub mod mark;
pub mod proof;
pub mod record;
pub mod row;
pub mod run;
pub mod scan;
pub mod segment;
pub mod superblock;
pub mod transaction;
pub mod upload_log;
