//! The breaker of a handler: closed, open for a growing while, half open with one probe at a time.
//! Pure: `now` is given, and what changed is told.

use std::time::{Duration, Instant};
use verge_config::site::BreakerLimits;
use verge_handlers::Verdict;

/// The first time that it is open.
const FIRST: Duration = Duration::from_secs(1);
/// The longest that it is open.
const LONGEST: Duration = Duration::from_secs(60);
/// So many probes in a row must end well.
const PROBES: u32 = 3;
/// A probe that nobody has heard of for so long does not keep others from being one.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);

/// A breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    limits: BreakerLimits,
    state: State,
    /// How long it is open the next time that it trips.
    next: Duration,
    /// When it last closed.
    closed: Option<Instant>,
    /// The number of the newest probe.
    probe: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Requests run. Failures are counted from the first one on, for as long as the window is, and
    /// successes above those of then.
    Closed { counting: Option<Counting> },
    /// None runs before this moment.
    Open { until: Instant },
    /// One runs at a time, to find out.
    HalfOpen { passed: u32, probing: Option<Instant> },
}

/// The failures of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counting {
    began: Instant,
    failures: u32,
    successes_before: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It runs.
    Run,
    /// It runs, and its end decides: this is the probe's number.
    Probe(u64),
    /// It does not run; another may after this time.
    Refuse(Duration),
}

/// What a breaker has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It has tripped, for so long.
    Opened(Duration),
    /// A probe runs.
    HalfOpened,
    /// All runs again.
    Closed,
}

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(limits: BreakerLimits) -> Breaker {
        let state = State::Closed { counting: None };
        Breaker { limits, state, next: FIRST, closed: None, probe: 0 }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether successes count at present: failures have been seen.
    pub(super) fn is_counting(&self) -> bool {
        matches!(self.state, State::Closed { counting: Some(_) })
    }

    /// Decides on a request.
    pub(super) fn admit(&mut self, now: Instant) -> (Admission, Option<Change>) {
        match self.state {
            State::Closed { .. } => (Admission::Run, None),
            State::Open { until } => match until.checked_duration_since(now) {
                Some(left) if !left.is_zero() => (Admission::Refuse(left), None),
                _ => (self.probe(0, now), Some(Change::HalfOpened)),
            },
            State::HalfOpen { passed, probing } => {
                let patience = probing.map(|since| {
                    PROBE_PATIENCE.saturating_sub(now.saturating_duration_since(since))
                });
                match patience {
                    Some(left) if !left.is_zero() => (Admission::Refuse(FIRST), None),
                    _ => (self.probe(passed, now), None),
                }
            }
        }
    }

    fn probe(&mut self, passed: u32, now: Instant) -> Admission {
        self.state = State::HalfOpen { passed, probing: Some(now) };
        self.probe += 1;
        Admission::Probe(self.probe)
    }

    /// A request that was no probe has failed; `successes` is a count of those that have not, which
    /// rises from call to call. What began before the breaker tripped says nothing any more.
    pub(super) fn failed(&mut self, now: Instant, successes: u32) -> Option<Change> {
        let State::Closed { counting } = self.state else { return None };
        let is_of_now = |counting: &Counting| {
            now.saturating_duration_since(counting.began) <= self.limits.window
        };
        let mut counting = counting.filter(is_of_now).unwrap_or(Counting {
            began: now,
            failures: 0,
            successes_before: successes,
        });
        counting.failures = counting.failures.saturating_add(1);
        let succeeded = successes.wrapping_sub(counting.successes_before);
        if counting.failures >= self.limits.failures && counting.failures >= succeeded {
            return Some(self.trip(now));
        }
        self.state = State::Closed { counting: Some(counting) };
        None
    }

    /// A probe has ended.
    pub(super) fn probed(&mut self, now: Instant, probe: u64, verdict: Verdict) -> Option<Change> {
        let State::HalfOpen { passed, .. } = self.state else { return None };
        if probe != self.probe {
            return None;
        }
        match verdict {
            Verdict::Fault => Some(self.trip(now)),
            Verdict::Neither => {
                self.state = State::HalfOpen { passed, probing: None };
                None
            }
            Verdict::Good if passed + 1 < PROBES => {
                self.state = State::HalfOpen { passed: passed + 1, probing: None };
                None
            }
            Verdict::Good => {
                self.state = State::Closed { counting: None };
                self.closed = Some(now);
                Some(Change::Closed)
            }
        }
    }

    /// Opens it, each time twice as long, until it has been closed for as long as it may be open.
    fn trip(&mut self, now: Instant) -> Change {
        let held = |closed: Instant| now.saturating_duration_since(closed) >= LONGEST;
        if self.is_closed() && self.closed.is_none_or(held) {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        self.state = State::Open { until: now + wait };
        Change::Opened(wait)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const LIMITS: BreakerLimits = BreakerLimits { failures: 3, window: Duration::from_secs(10) };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A breaker that has just tripped.
    fn tripped(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        assert_eq!(breaker.failed(now, 0), None);
        assert_eq!(breaker.failed(now, 0), None);
        assert_eq!(breaker.failed(now, 0), Some(Change::Opened(FIRST)));
        breaker
    }

    fn probe(breaker: &mut Breaker, now: Instant) -> u64 {
        match breaker.admit(now).0 {
            Admission::Probe(number) => number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_opens_half_opens_and_closes() {
        let start = Instant::now();
        let mut breaker = tripped(start);
        assert_eq!(breaker.admit(start + ms(400)).0, Admission::Refuse(ms(600)));
        let later = start + FIRST;
        assert_eq!(breaker.admit(later), (Admission::Probe(1), Some(Change::HalfOpened)));
        assert_eq!(breaker.admit(later), (Admission::Refuse(FIRST), None), "one at a time");
        assert_eq!(breaker.probed(later, 1, Verdict::Good), None);
        for _ in 1..PROBES - 1 {
            let number = probe(&mut breaker, later);
            assert_eq!(breaker.probed(later, number, Verdict::Good), None);
        }
        let number = probe(&mut breaker, later);
        assert_eq!(breaker.probed(later, number, Verdict::Good), Some(Change::Closed));
        assert_eq!(breaker.admit(later).0, Admission::Run);
    }

    #[test]
    fn failures_count_within_the_window_only() {
        let start = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        for round in 0..20 {
            assert_eq!(breaker.failed(start + ms(round * 10_001), 0), None);
            assert_eq!(breaker.failed(start + ms(round * 10_001 + 1), 0), None);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn whoever_mostly_succeeds_is_not_stopped() {
        let start = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        for n in 0..1_000 {
            assert_eq!(breaker.failed(start, n * 2 + 4), None);
        }
        assert_eq!(
            breaker.failed(start, 1_005),
            Some(Change::Opened(FIRST)),
            "half of them is enough"
        );
    }

    #[test]
    fn it_stays_open_longer_each_time_up_to_a_minute() {
        let mut now = Instant::now();
        let mut breaker = tripped(now);
        let mut wait = FIRST;
        for _ in 0..10 {
            now += wait;
            let number = probe(&mut breaker, now);
            let longer = (wait * 2).min(LONGEST);
            assert_eq!(breaker.probed(now, number, Verdict::Fault), Some(Change::Opened(longer)));
            wait = longer;
        }
        assert_eq!(wait, LONGEST);
        // Closed, and soon open again: as long as before.
        now += wait;
        for _ in 0..PROBES {
            let number = probe(&mut breaker, now);
            breaker.probed(now, number, Verdict::Good);
        }
        for _ in 0..2 {
            assert_eq!(breaker.failed(now, 0), None);
        }
        assert_eq!(breaker.failed(now, 0), Some(Change::Opened(LONGEST)));
        // Closed for as long as it may be open: from the beginning.
        now += LONGEST;
        for _ in 0..PROBES {
            let number = probe(&mut breaker, now);
            breaker.probed(now, number, Verdict::Good);
        }
        now += LONGEST;
        for _ in 0..2 {
            assert_eq!(breaker.failed(now, 0), None);
        }
        assert_eq!(breaker.failed(now, 0), Some(Change::Opened(FIRST)));
    }

    #[test]
    fn a_probe_that_says_nothing_makes_room_for_another() {
        let start = Instant::now();
        let mut breaker = tripped(start);
        let now = start + FIRST;
        let number = probe(&mut breaker, now);
        assert_eq!(breaker.probed(now, number, Verdict::Neither), None);
        let second = probe(&mut breaker, now);
        assert_ne!(number, second);
        // One that was never heard of again, too; what it says afterwards counts no more.
        let late = now + PROBE_PATIENCE;
        let third = probe(&mut breaker, late);
        assert_eq!(breaker.probed(late, second, Verdict::Fault), None);
        assert_eq!(breaker.probed(late, third, Verdict::Good), None);
    }

    #[test]
    fn what_began_before_it_tripped_says_nothing() {
        let start = Instant::now();
        let mut breaker = tripped(start);
        for _ in 0..100 {
            assert_eq!(breaker.failed(start, 0), None);
        }
        assert_eq!(breaker.admit(start + FIRST).0, Admission::Probe(1));
    }

    /// What can happen to a breaker.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Pass(u64),
        Ask,
        Fail(u32),
        Probed(u8),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u64..90_000).prop_map(Event::Pass),
            Just(Event::Ask),
            (0_u32..10).prop_map(Event::Fail),
            (0_u8..3).prop_map(Event::Probed),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_lets_somebody_try_again(events in prop::collection::vec(event(), 0..200)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(LIMITS);
            let (mut probes, mut open) = (Vec::new(), None);
            for event in events {
                match event {
                    Event::Pass(milliseconds) => now += ms(milliseconds),
                    Event::Ask => {
                        let was_closed = breaker.is_closed();
                        let (admission, change) = breaker.admit(now);
                        match admission {
                            Admission::Run => prop_assert!(was_closed),
                            Admission::Refuse(wait) => prop_assert!(!wait.is_zero() && wait <= LONGEST),
                            Admission::Probe(number) => {
                                // Never before the time that was told when it tripped.
                                prop_assert!(open.is_none_or(|until| now >= until));
                                probes.push(number);
                            }
                        }
                        prop_assert!(matches!(change, None | Some(Change::HalfOpened)));
                    }
                    Event::Fail(successes) => {
                        let was_closed = breaker.is_closed();
                        let change = breaker.failed(now, successes);
                        prop_assert!(change.is_none() || was_closed);
                        if let Some(Change::Opened(wait)) = change {
                            open = Some(now + wait);
                        }
                    }
                    Event::Probed(kind) => {
                        let Some(number) = probes.pop() else { continue };
                        let verdict = match kind {
                            0 => Verdict::Good,
                            1 => Verdict::Fault,
                            _ => Verdict::Neither,
                        };
                        match breaker.probed(now, number, verdict) {
                            Some(Change::Opened(wait)) => {
                                prop_assert_eq!(verdict, Verdict::Fault);
                                open = Some(now + wait);
                            }
                            Some(Change::Closed) => {
                                prop_assert_eq!(verdict, Verdict::Good);
                                prop_assert!(breaker.is_closed());
                            }
                            other => prop_assert_eq!(other, None),
                        }
                    }
                }
            }
            // After the longest wait somebody may try, and enough good ends close it.
            for _ in 0..PROBES {
                now += LONGEST;
                match breaker.admit(now).0 {
                    Admission::Run => break,
                    Admission::Probe(number) => {
                        breaker.probed(now, number, Verdict::Good);
                    }
                    Admission::Refuse(wait) => prop_assert!(false, "still refuses, for {wait:?}"),
                }
            }
            prop_assert!(breaker.is_closed());
        }
    }
}
