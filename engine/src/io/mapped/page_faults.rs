//! The page faults of a thread.
//!
//! Owns: [`FaultWatch`]. The kernel counts a fault of the thread whenever it uses a page that is not mapped, also
//! inside a system call such as `write`. A page that it evicted and read again is such a page.

/// Notices page faults of the thread that began it.
#[derive(Debug)]
pub struct FaultWatch {
    /// `None` if the kernel does not count them.
    before: Option<u64>,
}

impl FaultWatch {
    /// Begins to watch this thread.
    pub fn begin() -> Self {
        Self { before: count() }
    }

    /// Returns whether the thread had no page fault since. Call it on the same thread.
    pub fn saw_none(&self) -> bool {
        self.before.is_some() && count() == self.before
    }
}

/// Returns the number of page faults of this thread since it was started (`getrusage(2)`).
fn count() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
    // SAFETY: the pointer leads to enough memory, which the call only writes to.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    #[expect(unsafe_code, reason = "it was filled by the kernel")]
    // SAFETY: all its fields are numbers, for which zeros are valid, too.
    let usage = unsafe { usage.assume_init() };
    let faults = u64::try_from(usage.ru_minflt).ok()? + u64::try_from(usage.ru_majflt).ok()?;
    (result == 0).then_some(faults)
}
