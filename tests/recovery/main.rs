//! Crashes on the simulated machine: everything acknowledged is present and whole afterwards, and nothing is half-done.
//!
//! `enumerate` stops histories before every write, sync and change of a directory, builds the images that a real disk
//! might have then, opens each, and stops that open too. `dropped_calls` drops calls before they complete. `resume`
//! continues uploads after a stop. In `faults` the disk fails, in `damage` and `flips` a closed store was changed, in
//! `rebuild` its caches are deleted. `collection` removes what nothing references, `untagged` and `followers` manifests
//! that nothing keeps. `repositories` deletes repositories. `uploads` has idle uploads and shortages, `watermark` a
//! disk that is nearly full.

mod check;
mod collection;
mod compaction;
mod damage;
mod dropped_calls;
mod enumerate;
mod faults;
mod flips;
mod followers;
mod rebuild;
mod repositories;
mod resume;
mod scrub;
mod spilled;
mod untagged;
mod uploads;
mod watermark;
mod workload;
