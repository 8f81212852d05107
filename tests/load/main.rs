//! The server under load: what it may use while it works.

mod memory;
