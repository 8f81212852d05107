//! The server under load: the memory that it may use.

mod memory;
