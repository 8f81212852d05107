//! The time slices of threads that clients wait for.
//!
//! Owns: [`shorten_time_slice`]. A thread that asks for short slices runs sooner after it wakes, and is interrupted
//! sooner. Its share of the processors stays the same (EEVDF, Linux 6.12; `sched_setattr(2)`).

use std::io;
use std::mem;

/// The shortest slice that Linux grants.
const SLICE_NS: u64 = 100_000;

/// Asks the kernel for short time slices of the current thread, but not of threads that it starts. Does nothing before
/// Linux 6.12, or if the operator gave the process another policy or a higher priority, which those threads would lose.
pub fn shorten_time_slice() {
    let shortened = attributes().and_then(|mut attributes| {
        let has_slices = attributes.sched_runtime > 0;
        let is_usual = attributes.sched_policy == libc::SCHED_OTHER.cast_unsigned()
            && attributes.sched_nice >= 0;
        if !has_slices || !is_usual {
            return Ok(());
        }
        attributes.sched_runtime = SLICE_NS;
        attributes.sched_flags |= u64::from(libc::SCHED_FLAG_RESET_ON_FORK.cast_unsigned());
        set_attributes(&attributes)
    });
    if let Err(error) = shortened {
        tracing::debug!(%error, "the time slice of a thread could not be shortened; continuing without");
    }
}

/// Returns how the current thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>();
    #[expect(unsafe_code, reason = "libc has no initial value for it")]
    // SAFETY: it consists of integers, for which zero is valid.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    #[expect(unsafe_code, reason = "no safe wrapper exists for this call")]
    // SAFETY: the kernel writes at most `size` bytes to `attributes`, which has as many.
    let outcome =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    match outcome {
        0 => Ok(attributes),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_attributes(attributes: &libc::sched_attr) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe wrapper exists for this call")]
    // SAFETY: the kernel reads `attributes`, which begins with its size, during the call.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Guards: the slice of this thread becomes short, where the kernel has slices, and that of its children does not.
    #[test]
    fn slices_become_short() {
        let slice = || attributes().expect("the own attributes").sched_runtime;
        let usual = slice();
        if usual == 0 {
            println!("NOT TESTED: this kernel is older than 6.12 and has no slices");
        }
        shorten_time_slice();
        assert_eq!(slice(), usual.min(SLICE_NS));
        let child = thread::scope(|scope| scope.spawn(slice).join());
        assert_eq!(child.expect("no panic"), usual);
    }
}
