//! Tests of the engine through its public interface, one module per subject.

mod commits;
mod directory;
mod fixtures;
mod seam;
mod segment;
mod table;
mod table_crash;
mod upload;
mod workbench;
