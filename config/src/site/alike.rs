//! One copy of what many sites have alike. A fleet's sites mostly repeat a few cache policies: kept once,
//! they stay near the processor however many sites are asked for. Values only; what nobody uses is dropped.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The values in use, and how many there may be before those that no longer are get dropped.
#[derive(Debug)]
pub(super) struct Alike<T>(LazyLock<Mutex<Known<T>>>);

#[derive(Debug)]
struct Known<T> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

/// As many values are kept before the first look for what is no longer used.
const FIRST_SWEEP: usize = 64;

// === impl Alike ===

impl<T: Eq + Hash> Alike<T> {
    pub(super) const fn new() -> Alike<T> {
        Alike(LazyLock::new(|| Mutex::new(Known { values: HashSet::new(), sweep_at: FIRST_SWEEP })))
    }

    /// The one copy of an equal value.
    pub(super) fn share(&self, value: T) -> Arc<T> {
        // A table of whole values is as good after a panic as before.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.values.get(&value) {
            return Arc::clone(shared);
        }
        if known.values.len() >= known.sweep_at {
            known.values.retain(|value| Arc::strong_count(value) > 1);
            known.sweep_at = (known.values.len() * 2).max(FIRST_SWEEP);
        }
        let shared = Arc::new(value);
        known.values.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NUMBERS: Alike<usize> = Alike::new();

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let kept: Vec<_> = (0..10).map(|number| NUMBERS.share(number)).collect();
        assert!(Arc::ptr_eq(&kept[3], &NUMBERS.share(3)));
        assert!(!Arc::ptr_eq(&kept[3], &NUMBERS.share(4)));
        for number in 10..10_000 {
            NUMBERS.share(number);
        }
        let known = NUMBERS.0.lock().unwrap().values.len();
        assert!(known <= FIRST_SWEEP + kept.len(), "{known}");
        assert!(kept.iter().all(|value| Arc::ptr_eq(value, &NUMBERS.share(**value))));
    }
}
