//! The program on real file systems that are small, read-only or without direct I/O; with io_uring
//! and without.
//!
//! Owns: the tests; `tonnage_tests::mount` mounts the file systems. Refuses: to fill a disk that is not the test's own.

mod cut_runs;
mod full;
mod limits;
mod nearly_full;
mod no_direct_io;
mod read_only;
mod rings;
mod served;
