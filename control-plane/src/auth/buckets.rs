//! Token buckets by key: how often an address may fail to authenticate, how fast a tenant may purge.
//! Pure over a clock that is passed in; bounded in keys.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The most keys; when they run out, those that are full again go, and after them all.
const MAX_KEYS: usize = 65_536;

/// Buckets that fill at one rate.
pub(crate) struct Buckets<K> {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

// === impl Buckets ===

impl<K: Hash + Eq> Buckets<K> {
    pub(crate) fn new(per_second: f64, burst: f64) -> Buckets<K> {
        Buckets { per_second, burst, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| self.filled(*bucket, now) < self.burst);
            if buckets.len() >= MAX_KEYS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: self.burst, at: now });
        let tokens = self.filled(*bucket, now);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / self.per_second));
        }
        *bucket = Bucket { tokens: tokens - 1.0, at: now };
        Ok(())
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        self.burst.min(bucket.tokens + passed * self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_key_by_itself() {
        let buckets = Buckets::new(10.0, 3.0);
        let now = Instant::now();
        for _ in 0..3 {
            assert!(buckets.take("a", now).is_ok());
        }
        let wait = buckets.take("a", now).unwrap_err();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        assert!(buckets.take("b", now).is_ok());
        assert!(buckets.take("a", now + wait + Duration::from_millis(1)).is_ok());
        assert!(buckets.take("a", now + wait + Duration::from_millis(2)).is_err());
    }

    #[test]
    fn the_keys_are_bounded() {
        let buckets = Buckets::new(0.001, 1.0);
        let now = Instant::now();
        for key in 0..MAX_KEYS + 10 {
            assert!(buckets.take(key, now).is_ok());
        }
        assert!(buckets.buckets.lock().len() <= MAX_KEYS);
    }
}
