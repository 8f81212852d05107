//! The ordered table: its layers in memory, and its runs on a real file system.

mod layers;
mod runs;
