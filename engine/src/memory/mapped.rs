//! The windows of one client that are mapped, not copied.
//!
//! Owns: [`MappedWindows`], by which the one who sends a window and the one who checked it make sure that the same
//! bytes were checked and sent. Refuses: files and checksums.
//!
//! A checked page stays as it is, until the kernel evicts it and reads it from the drive again. That is a page fault of
//! the thread that uses the page next. So a window that is used without a fault is the one that was checked. After a
//! fault the window is checked again. Only a check without a fault counts: a fault may map other pages than the one
//! that caused it, which the check has passed already.
//!
//! Not noticed: a page that is evicted twice between the begin of a use and the end of the check after it, and of which
//! the drive returns two versions.

use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::io::{FaultWatch, IoFuture};
use crate::sync::{AtomicBool, Mutex};

/// How often a window is checked until a check has no page fault.
const ATTEMPTS: usize = 3;

/// A window that was mapped and checked.
pub(crate) trait CheckedWindow: Send + Sync + Debug {
    /// Returns whether its bytes have the checksums that they must have.
    fn is_unchanged(&self) -> bool;
    /// Returns whether all of it is in memory.
    fn is_resident(&self) -> bool;
    /// Reads what is not in memory.
    fn load(self: Arc<Self>) -> IoFuture<()>;
}

/// The mapped windows of one client.
#[derive(Debug)]
pub(super) struct MappedWindows {
    is_allowed: AtomicBool,
    windows: Mutex<Vec<Weak<dyn CheckedWindow>>>,
}

impl Default for MappedWindows {
    fn default() -> Self {
        Self {
            is_allowed: AtomicBool::new(false),
            windows: Mutex::new(Vec::new()),
        }
    }
}

impl MappedWindows {
    pub(super) fn set_allowed(&self, is_allowed: bool) {
        self.is_allowed.store(is_allowed, Ordering::Relaxed);
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.is_allowed.load(Ordering::Relaxed)
    }

    /// Adds a window, until it drops.
    pub(super) fn add(&self, window: Weak<dyn CheckedWindow>) {
        let mut windows = self.windows.lock();
        windows.retain(|window| window.strong_count() > 0);
        windows.push(window);
    }

    /// Runs `use_bytes`, which may use the bytes of the windows on this thread. Returns false if those may not be the
    /// ones that were checked.
    pub(super) fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool {
        let windows = self.held();
        if windows.is_empty() {
            use_bytes();
            return true;
        }
        let watch = FaultWatch::begin();
        use_bytes();
        watch.saw_none() || windows.iter().all(|window| is_surely_unchanged(&**window))
    }

    /// Returns a future that reads what is not in memory, and resolves to whether all is as it was checked. `None` if
    /// everything is in memory.
    pub(super) fn load(&self) -> Option<impl Future<Output = bool> + Send + 'static> {
        let mut absent = self.held();
        absent.retain(|window| !window.is_resident());
        if absent.is_empty() {
            return None;
        }
        Some(async move {
            for window in &absent {
                if Arc::clone(window).load().await.is_err() {
                    return false;
                }
            }
            // Another thread had the faults.
            absent.iter().all(|window| is_surely_unchanged(&**window))
        })
    }

    fn held(&self) -> Vec<Arc<dyn CheckedWindow>> {
        self.windows
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

/// Checks a window without a page fault, and returns whether it is right. False if each attempt has a fault, because
/// the kernel evicts pages as fast as they are read.
pub(crate) fn is_surely_unchanged(window: &dyn CheckedWindow) -> bool {
    for _ in 0..ATTEMPTS {
        let watch = FaultWatch::begin();
        if !window.is_unchanged() {
            return false;
        }
        if watch.saw_none() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;

    use super::*;

    #[derive(Debug, Default)]
    struct Window {
        is_changed: AtomicBool,
        is_absent: AtomicBool,
        faults_in_checks: AtomicBool,
        checks: AtomicUsize,
    }

    impl CheckedWindow for Window {
        fn is_unchanged(&self) -> bool {
            self.checks.fetch_add(1, Ordering::Relaxed);
            if self.faults_in_checks.load(Ordering::Relaxed) {
                cause_faults();
            }
            !self.is_changed.load(Ordering::Relaxed)
        }

        fn is_resident(&self) -> bool {
            !self.is_absent.load(Ordering::Relaxed)
        }

        fn load(self: Arc<Self>) -> IoFuture<()> {
            self.is_absent.store(false, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        }
    }

    /// Uses memory that the kernel has not mapped yet.
    fn cause_faults() {
        black_box(vec![1_u8; 64 << 20]);
    }

    fn client() -> (MappedWindows, Arc<Window>) {
        let (windows, window) = (MappedWindows::default(), Arc::new(Window::default()));
        let noted: Weak<Window> = Arc::downgrade(&window);
        windows.add(noted);
        (windows, window)
    }

    /// Guards: a window that was used without a page fault is not checked again. After a fault it is, and what was used
    /// counts as wrong if the bytes are wrong, or if every check has a fault, too.
    #[test]
    fn after_a_fault_windows_are_checked_again() {
        let (windows, window) = client();
        let checks = || window.checks.swap(0, Ordering::Relaxed);
        let mut uses = 0;
        assert!(windows.used_unchanged(&mut || uses += 1));
        assert_eq!((uses, checks()), (1, 0));
        assert!(windows.used_unchanged(&mut cause_faults));
        assert_eq!(checks(), 1);
        window.faults_in_checks.store(true, Ordering::Relaxed);
        assert!(!windows.used_unchanged(&mut cause_faults));
        window.faults_in_checks.store(false, Ordering::Relaxed);
        assert_eq!(checks(), ATTEMPTS);
        window.is_changed.store(true, Ordering::Relaxed);
        assert!(!windows.used_unchanged(&mut cause_faults));
        assert_eq!(checks(), 1);
        drop(window);
        assert!(windows.used_unchanged(&mut cause_faults), "none is left");
    }

    /// Guards: windows that are in memory need no read. Others are read, and then checked, because another thread had
    /// the faults.
    #[test]
    fn what_was_read_again_is_checked_again() {
        let (windows, window) = client();
        assert!(windows.load().is_none());
        for is_changed in [false, true] {
            window.is_absent.store(true, Ordering::Relaxed);
            window.is_changed.store(is_changed, Ordering::Relaxed);
            let loaded = windows.load().expect("a part is absent").now_or_never();
            assert_eq!(loaded, Some(!is_changed));
        }
    }
}
