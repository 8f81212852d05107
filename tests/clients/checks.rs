//! Checks of answers and contents that several tests share.
//!
//! Owns: [`json`], [`same`], [`refused`], [`small_image`]. Refuses: an error that does not show both sides.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::call::Call;
use crate::lane::{Lane, Registry};
use crate::layout::{Layers, write_image};

pub fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("parse {text}: {e}"))
}

pub fn same(what: &str, found: impl Into<Value>, wanted: impl Into<Value>) -> Result<(), String> {
    let (found, wanted) = (found.into(), wanted.into());
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {found} instead of {wanted}"))
    }
}

/// Checks that `call` fails, because its target was deleted or is invalid.
pub fn refused(what: &str, call: Call) -> Result<(), String> {
    match call.run() {
        Ok(said) => Err(format!("{what}: {said}")),
        Err(_) => Ok(()),
    }
}

pub fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
}

/// Pushes an image from the layout `source`. Returns the registry, the repository's name and the manifest's digest.
pub fn small_image(lane: &Lane, purpose: &str) -> Result<(Registry, String, String), String> {
    let registry = lane.registry()?;
    let manifest = write_image(&lane.programs, &registry.path("source"), Layers::Compressed)?;
    Ok((registry, lane.repository(purpose), manifest))
}
