//! The program on real file systems that are small or read-only.
//!
//! Owns: the tests; `tonnage_tests::mount` mounts the file systems. Refuses: to fill a disk that is not the test's own.

mod cut_runs;
mod full;
mod limits;
mod nearly_full;
mod read_only;
mod served;
