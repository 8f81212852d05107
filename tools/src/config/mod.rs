//! Configuration: from what was typed to what it means.
//!
//! Owns: the path flags, `TONNAGE_*` variables and file -> [`raw::Raw`] -> [`resolve::Resolved`], with every
//! mistake on the way reported together.
//! Refuses: a second list of options; [`options::OPTIONS`] is the only one.

pub(crate) mod diagnose;
mod file;
pub(crate) mod flags;
pub(crate) mod options;
mod raw;
pub(crate) mod resolve;
pub(crate) mod settings;
pub(crate) mod source;
pub(crate) mod value;

use flags::ConfigFlags;
use resolve::Resolved;

/// Reads flags, this process's environment and the file they name.
pub(crate) fn load(flags: &ConfigFlags) -> Resolved {
    resolve::resolve(raw::read(flags, std::env::vars_os()))
}
