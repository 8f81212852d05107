//! `kill -9` and strace against the real program.
