//! What threads share: locks, flags, the published state, wake-ups.
//!
//! Owns: the one choice of where these come from. In what ships they are the libraries' own, re-exported, at no cost. With the
//! feature `shuttle`, which only `tests/races` asks for, they are stand-ins of the same shape whose every use is a point at
//! which the `shuttle` scheduler may go on with another thread.
//! Refuses: being passed by; a lock or a flag that does not come from here is one that `tests/races` cannot see. What never has a
//! choice to make (`Arc`, the channels' receiving ends, async locks, which are taken or found taken in one step) stays where it is.
//!
//! `io/threads` keeps its own: it is real threads behind the seam, and under `shuttle` another `Io` takes its place.

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

    /// Another thread may run here.
    fn point() {
        AtomicBool::new(false).load(std::sync::atomic::Ordering::SeqCst);
    }

    /// `parking_lot`'s, as far as it is used.
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

    /// `arc_swap`'s, as far as it is used.
    #[derive(Debug)]
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            Arc::clone(&self.0.lock())
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            *self.0.lock() = value;
        }
    }

    /// The standard library's, as far as it is used. What fills it must not touch anything of this module.
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

    /// Tokio's: each call is one step, between others.
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

    /// Tokio's, with a point before each answer.
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
