//! Maps a file, so that the write loop reads it without a copy.
//!
//! Owns: [`Mapped`]. Invariant: the file is not changed while it is mapped; the runner removes it only after its
//! servers have ended.

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// A file that is mapped until the process ends.
#[derive(Debug, Clone, Copy)]
pub struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

#[expect(
    unsafe_code,
    reason = "the limit of a pull is a write loop from a mapped file"
)]
impl Mapped {
    /// Maps `path`.
    pub fn open(path: &Path) -> Result<Self, String> {
        let doing = |e: &dyn std::fmt::Display| format!("map {}: {e}", path.display());
        let file = File::open(path).map_err(|e| doing(&e))?;
        let length = file.metadata().map_err(|e| doing(&e))?.len();
        let length = usize::try_from(length).map_err(|e| doing(&e))?;
        // SAFETY: the kernel chooses the address of a new mapping, so no other memory is affected.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )
        };
        let start = start.map_err(|e| doing(&e))?;
        let start = NonNull::new(start.cast()).ok_or_else(|| doing(&"no address"))?;
        Ok(Self { start, length })
    }

    /// Returns the content.
    pub fn bytes(self) -> &'static [u8] {
        // SAFETY: the mapping has `length` readable bytes, is never removed, and its file is not changed (see above).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}
