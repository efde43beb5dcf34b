//! How long to wait before the next attempt to reach the control plane. Pure but for the dice.

use rand::Rng;
use std::time::Duration;

/// The ceiling of the first wait.
const FIRST: Duration = Duration::from_millis(100);

/// Exponential back-off with full jitter: each wait is drawn from zero to a ceiling that doubles from
/// 100 ms to a cap, so that a fleet that lost its control plane does not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    ceiling: Duration,
    cap: Duration,
}

impl Backoff {
    pub(super) fn new(cap: Duration) -> Backoff {
        Backoff { ceiling: FIRST.min(cap), cap }
    }

    /// The next wait.
    pub(super) fn next(&mut self, dice: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.cap);
        ceiling.mul_f64(dice.random::<f64>())
    }

    /// A healthy stream was seen: the next wait is short again.
    pub(super) fn reset(&mut self) {
        self.ceiling = FIRST.min(self.cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_grow_to_the_cap_and_begin_again() {
        let cap = Duration::from_secs(30);
        let mut dice = StdRng::seed_from_u64(7);
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let mut backoff = Backoff::new(cap);
            for attempt in 0..20_u32 {
                let ceiling = FIRST.saturating_mul(2_u32.saturating_pow(attempt)).min(cap);
                let wait = backoff.next(&mut dice);
                assert!(wait <= ceiling, "attempt {attempt}: {wait:?} > {ceiling:?}");
                longest = longest.max(wait);
            }
            backoff.reset();
            assert!(backoff.next(&mut dice) <= FIRST);
        }
        assert!(longest > cap / 2, "the jitter reaches up: {longest:?}");
    }
}
