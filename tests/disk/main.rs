//! The program on real file systems that are small or refuse writes.
//!
//! Owns: mounting them in a mount namespace of their own, so that nothing of it is seen outside or outlives the test.
//! Refuses: filling a disk that anybody else uses.

mod full;
mod mount;
mod read_only;
mod served;
