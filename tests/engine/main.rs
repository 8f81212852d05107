//! Tests of the engine through its public interface, one module per subject.

mod seam;
mod table;
mod table_crash;
