//! The engine under schedules of threads: at every lock, flag, published state, wake-up and disk operation `shuttle`
//! may switch to another thread. The simulator (`tests/recovery`) runs on one thread and cannot test this.

mod checkpoints;
mod commits;
mod compaction;
mod ends;
mod leases;
mod segments;
mod uploads;
