//! The program on real file systems that are small or refuse writes.
//!
//! Owns: the tests. Mounting them is `tonnage_tests::mount`'s.
//! Refuses: filling a disk that anybody else uses.

mod cut_runs;
mod full;
mod limits;
mod read_only;
mod served;
