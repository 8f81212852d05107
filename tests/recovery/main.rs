//! Crashes on the simulated machine: whatever was acknowledged is there afterwards, whole, and nothing is half-done.
//!
//! `enumerate` stops scripted workloads after every write, sync and change of a name in turn, builds the images a real disk
//! might hold then, and opens each, and stops that opening, too. `given_up` drops calls half-way, as when a client goes.
//! `resume` goes on with uploads after a stop. In `faults` the disk fails, in `damage` a closed store was changed, in `rebuild`
//! its caches are gone. `repositories` deletes some. `uploads` are idle, or meet a shortage.

mod check;
mod damage;
mod enumerate;
mod faults;
mod flips;
mod given_up;
mod rebuild;
mod repositories;
mod resume;
mod uploads;
mod workload;
