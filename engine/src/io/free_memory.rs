//! Memory that is free and still resident.
//!
//! Owns: when the allocator is asked to give it back. glibc keeps what many requests at once had used for good: its heaps are
//! given back from their ends only, and something small is always left there.

use std::fs;

/// Memory that may stay resident though nothing uses it, in bytes.
const SPARE_BYTES_MAX: usize = 32 << 20;

/// Gives memory that is free back to the system, if more than 32 MiB of it are resident. Takes milliseconds then, so it is for a
/// thread that may block. Does nothing where the C library is not glibc.
pub fn release_free_memory() {
    let Some(resident) = resident_bytes() else {
        return;
    };
    if resident > used_bytes() + SPARE_BYTES_MAX {
        trim();
    }
}

/// Anonymous memory of this process that is resident.
fn resident_bytes() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1 << 10)
}

/// What the program has allocated.
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
    // SAFETY: it gives back pages that hold no allocation, under the locks of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn used_bytes() -> usize {
    usize::MAX - SPARE_BYTES_MAX
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Guards: pages of small allocations that are gone are given back, though a later one is still there.
    #[test]
    fn freed_memory_is_given_back() {
        let many: Vec<Vec<u8>> = (0..128 << 10).map(|_| vec![1; 1000]).collect();
        let last = vec![1_u8; 1000];
        drop(many);
        release_free_memory();
        let resident = resident_bytes().unwrap();
        let free = resident.saturating_sub(used_bytes());
        assert!(free < SPARE_BYTES_MAX, "{free} of {resident} bytes");
        drop(last);
    }
}
