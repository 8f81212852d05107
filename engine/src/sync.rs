//! What threads share: locks, flags, the published state, wake-ups.
//!
//! Owns: the choice of implementation. Without features these are the libraries' own types, re-exported at no cost.
//! With the feature `shuttle`, which only `tests/races` uses, they are stand-ins of the same shape. Every use of one is
//! a point at which the `shuttle` scheduler may switch to another thread.
//!
//! Invariant: every lock and flag of the engine comes from here; `tests/races` cannot observe any other. Types without
//! a choice for the scheduler are used directly: `Arc`, receiving ends of channels, and async locks, which are taken or
//! found taken in one step.
//!
//! `io/threads`, `io/uring` and `io/mapped` use their own: under `shuttle` another `Io` replaces them.

#[cfg(not(feature = "shuttle"))]
pub(crate) use self::shipped::*;
#[cfg(feature = "shuttle")]
pub(crate) use self::watched::*;

#[cfg(not(feature = "shuttle"))]
mod shipped {
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};

    pub(crate) use arc_swap::ArcSwap;
    pub(crate) use parking_lot::{Mutex, MutexGuard};
    pub(crate) use tokio::sync::{Notify, oneshot};
}

#[cfg(feature = "shuttle")]
mod watched {
    use std::sync::{Arc, PoisonError};

    pub(crate) use shuttle::sync::MutexGuard;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
    use tokio::sync::futures::Notified;

    /// Lets the scheduler switch to another thread.
    fn point() {
        AtomicBool::new(false).load(std::sync::atomic::Ordering::SeqCst);
    }

    /// Stands in for `parking_lot`'s type, as far as it is used.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Stands in for `arc_swap`'s type, as far as it is used.
    #[derive(Debug)]
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(crate) fn load(&self) -> Arc<T> {
            self.load_full()
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            Arc::clone(&self.0.lock())
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            *self.0.lock() = value;
        }

        pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
            std::mem::replace(&mut *self.0.lock(), value)
        }
    }

    /// Stands in for the standard library's type, as far as it is used. The function that fills it must not use
    /// anything of this module.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self(std::sync::OnceLock::new())
        }
    }

    impl<T> OnceLock<T> {
        pub(crate) fn get(&self) -> Option<&T> {
            point();
            self.0.get()
        }

        pub(crate) fn get_or_init(&self, fill: impl FnOnce() -> T) -> &T {
            point();
            self.0.get_or_init(fill)
        }
    }

    /// Stands in for Tokio's type: each call is one step, between others.
    #[derive(Debug, Default)]
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notify_one(&self) {
            point();
            self.0.notify_one();
        }

        pub(crate) fn notify_waiters(&self) {
            point();
            self.0.notify_waiters();
        }

        pub(crate) fn notified(&self) -> Notified<'_> {
            point();
            self.0.notified()
        }
    }

    /// Stands in for Tokio's module, with a scheduling point before each send.
    pub(crate) mod oneshot {
        pub(crate) use tokio::sync::oneshot::Receiver;

        #[derive(Debug)]
        pub(crate) struct Sender<T>(tokio::sync::oneshot::Sender<T>);

        impl<T> Sender<T> {
            pub(crate) fn send(self, value: T) -> Result<(), T> {
                super::point();
                self.0.send(value)
            }
        }

        pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            (Sender(sender), receiver)
        }
    }
}
