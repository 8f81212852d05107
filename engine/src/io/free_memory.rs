//! Returns free memory to the system.
//!
//! Owns: when the allocator is asked for that. glibc keeps memory that many concurrent requests used: it returns its
//! heaps only from their ends, where some small allocation usually remains.

use std::fs;

/// Returns free memory to the system if more than `spare_bytes` of it are resident. That takes milliseconds, so call it
/// on a thread that may block. Does nothing without glibc.
pub fn release_free_memory(spare_bytes: usize) {
    let Some(resident) = resident_bytes() else {
        return;
    };
    if resident > used_bytes().saturating_add(spare_bytes) {
        trim();
    }
}

/// Returns the resident anonymous memory of this process in bytes.
fn resident_bytes() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1 << 10)
}

/// Returns the bytes that the program has allocated.
#[cfg(target_env = "gnu")]
fn used_bytes() -> usize {
    #[expect(unsafe_code, reason = "no safe wrapper exists for this call")]
    // SAFETY: it takes nothing, and counts under the locks of the allocator.
    let counts = unsafe { libc::mallinfo() };
    // Each counts modulo 4 GiB. `mallinfo2` does not, but a glibc before 2.33 lacks it.
    counts.uordblks.cast_unsigned() as usize + counts.hblkhd.cast_unsigned() as usize
}

#[cfg(target_env = "gnu")]
fn trim() {
    #[expect(unsafe_code, reason = "no safe wrapper exists for this call")]
    // SAFETY: it returns pages that hold no allocation, under the locks of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn used_bytes() -> usize {
    usize::MAX
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Guards: pages of freed small allocations are returned although a later allocation is still in use.
    #[test]
    fn freed_memory_is_returned() {
        let many: Vec<Vec<u8>> = (0..128 << 10).map(|_| vec![1; 1000]).collect();
        let last = vec![1_u8; 1000];
        drop(many);
        release_free_memory(32 << 20);
        let resident = resident_bytes().unwrap();
        let free = resident.saturating_sub(used_bytes());
        assert!(free < 32 << 20, "{free} of {resident} bytes");
        drop(last);
    }
}
