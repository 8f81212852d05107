//! The engine between threads: every lock, flag, published state and wake-up is a point at which `shuttle` may go on with another
//! thread, and so is every operation of the disk. The simulator (`tests/recovery`) runs on one thread and cannot see what happens here.
//!
//! Each body runs under many schedules (`support/explore`).

mod checkpoints;
mod commits;
mod ends;
mod leases;
mod segments;
mod uploads;
