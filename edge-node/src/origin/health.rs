//! Which of an origin's addresses to try next: weights and passive health. Pure: it is given the
//! time and the roll of the dice.

use std::time::{Duration, Instant};

/// How long an address is avoided after its first failure; doubled with each more.
const FIRST_REST: Duration = Duration::from_millis(500);
/// The longest that it is avoided before it is tried again.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// What is known of one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    failures: u32,
    rest_until: Option<Instant>,
}

impl Health {
    /// A connection was made or a response came.
    pub(super) fn succeeded(&mut self) {
        *self = Health::default();
    }

    /// A connection could not be made.
    pub(super) fn failed(&mut self, now: Instant) {
        let rest = FIRST_REST.saturating_mul(1 << self.failures.min(10)).min(LONGEST_REST);
        self.failures = self.failures.saturating_add(1);
        self.rest_until = Some(now + rest);
    }

    /// Whether it is avoided now.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rest_until.is_some_and(|until| now < until)
    }
}

/// An address as the choice sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its share.
    pub(super) weight: u16,
    /// What is known of it.
    pub(super) health: Health,
    /// This request has failed on it already.
    pub(super) tried: bool,
}

/// The place of the address to try: by weight among those that are well; when all rest, the one that
/// has rested longest. `roll` is any number; `None` when all have been tried.
pub(super) fn choose(candidates: &[Candidate], now: Instant, roll: u64) -> Option<usize> {
    let open = || candidates.iter().enumerate().filter(|(_, c)| !c.tried);
    let well = || open().filter(|(_, c)| !c.health.rests(now));
    let total: u64 = well().map(|(_, c)| u64::from(c.weight)).sum();
    if total == 0 {
        return open().min_by_key(|(_, c)| c.health.rest_until).map(|(index, _)| index);
    }
    let mut left = roll % total;
    for (index, candidate) in well() {
        match left.checked_sub(u64::from(candidate.weight)) {
            Some(rest) => left = rest,
            None => return Some(index),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(weight: u16) -> Candidate {
        Candidate { weight, health: Health::default(), tried: false }
    }

    #[test]
    fn shares_follow_weights() {
        let candidates = [candidate(1), candidate(3)];
        let now = Instant::now();
        let picks: Vec<_> = (0..8).map(|roll| choose(&candidates, now, roll).unwrap()).collect();
        assert_eq!(picks, [0, 1, 1, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn a_failed_address_rests_for_a_growing_time_and_comes_back() {
        let now = Instant::now();
        let mut candidates = [candidate(1), candidate(1)];
        candidates[0].health.failed(now);
        assert!((0..9).all(|roll| choose(&candidates, now, roll) == Some(1)));
        let later = now + FIRST_REST;
        assert_eq!(choose(&candidates, later, 0), Some(0));
        candidates[0].health.failed(later);
        assert!(candidates[0].health.rests(later + FIRST_REST));
        assert!(!candidates[0].health.rests(later + FIRST_REST * 2));
        for _ in 0..40 {
            candidates[0].health.failed(later);
        }
        assert!(!candidates[0].health.rests(later + LONGEST_REST));
        candidates[0].health.succeeded();
        assert!(!candidates[0].health.rests(later));
    }

    #[test]
    fn when_all_rest_the_longest_rested_is_tried() {
        let now = Instant::now();
        let mut candidates = [candidate(1), candidate(1)];
        candidates[0].health.failed(now + Duration::from_millis(10));
        candidates[1].health.failed(now);
        assert_eq!(choose(&candidates, now, 7), Some(1));
        candidates[1].tried = true;
        assert_eq!(choose(&candidates, now, 7), Some(0));
        candidates[0].tried = true;
        assert_eq!(choose(&candidates, now, 7), None);
    }

    proptest! {
        #[test]
        fn a_choice_is_never_one_that_was_tried(
            weights in proptest::collection::vec((1u16..1000, any::<bool>(), any::<bool>()), 0..8),
            roll: u64,
        ) {
            let now = Instant::now();
            let candidates: Vec<_> = weights.iter().map(|&(weight, tried, ill)| {
                let mut health = Health::default();
                if ill { health.failed(now); }
                Candidate { weight, health, tried }
            }).collect();
            match choose(&candidates, now, roll) {
                Some(index) => prop_assert!(!candidates[index].tried),
                None => prop_assert!(candidates.iter().all(|c| c.tried)),
            }
        }
    }
}
