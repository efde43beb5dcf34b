//! Locks and counters of what purges and fills share: the usual ones, or, for the model test, ones whose
//! every use is a point at which another thread may go on. Holds no logic.

#[cfg(not(feature = "model"))]
pub(crate) use parking_lot::{Mutex, RwLock};
#[cfg(not(feature = "model"))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "model")]
pub(crate) use model::{Mutex, RwLock};
#[cfg(feature = "model")]
pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "model")]
mod model {
    use shuttle::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
    use std::sync::PoisonError;

    /// A lock with the face of the usual one: nobody asks whether it is poisoned.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// The same for readers and writers.
    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> RwLock<T> {
            RwLock(shuttle::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
