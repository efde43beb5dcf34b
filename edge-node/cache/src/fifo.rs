//! A map whose values leave it as S3-FIFO says when their bytes are more than its size (Yang, Zhang, Qiu,
//! Yue and Rashmi: FIFO queues are all you need for cache eviction, SOSP 2023). Knows nothing of what it
//! holds.

use crate::cells::Cells;
use parking_lot::RwLock;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

/// The share of the size that what has just come in may take.
const SMALL_SHARE: u64 = 10;
/// As many uses as are counted.
const MAX_USES: u8 = 3;
/// What was used more often than this while it was new stays.
const USES_TO_STAY: u8 = 1;
/// Places in the queues that nothing has any longer are cleared away beyond so many.
const SPARE_PLACES: usize = 64;

/// What is kept has a place for the count of its uses: it is in the processor's cache anyway.
pub(crate) trait Used {
    /// The count.
    fn uses(&self) -> &AtomicU8;
}

/// The map, in parts with a lock each. Keys are 64 bits that are evenly spread. `R` is what a look at a
/// value seldom needs.
pub(crate) struct Fifo<V, R> {
    parts: Box<[RwLock<Part<V, R>>]>,
}

/// What left the map for something that came in.
pub(crate) struct Left<V, R> {
    /// What had the same key.
    pub(crate) replaced: Option<(V, R)>,
    /// What there was no room for; the newcomer itself, where it is larger than a part.
    pub(crate) evicted: Vec<(V, R)>,
}

struct Part<V, R> {
    size: u64,
    values: Cells<V, Slot<R>>,
    small: Queue,
    main: Queue,
    /// Keys of what left while it was new: if it comes again soon, it stays.
    ghosts: HashSet<u64, BuildHasherDefault<AsItIs>>,
    ghost_order: VecDeque<u64>,
    next_turn: u32,
}

struct Slot<R> {
    rest: R,
    bytes: u64,
    /// Tells its place in a queue from those that it had before.
    turn: u32,
    is_main: bool,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<(u64, u32)>,
    bytes: u64,
}

/// The keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

// === impl AsItIs ===

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

// === impl Fifo ===

impl<V: Used, R> Fifo<V, R> {
    /// An empty map of so many bytes in `1 << parts` equal parts.
    pub(crate) fn new(bytes: u64, parts: u32) -> Fifo<V, R> {
        let size = bytes >> parts;
        Fifo { parts: (0..1 << parts).map(|_| RwLock::new(Part::new(size))).collect() }
    }

    /// Uses the value under a key: the first look is at it alone, the second, where the first finds
    /// nothing, at the rest too.
    pub(crate) fn get<T>(
        &self,
        key: u64,
        first: impl FnOnce(&V) -> Option<T>,
        second: impl FnOnce(&V, &R) -> Option<T>,
    ) -> Option<T> {
        let part = self.part(key).read();
        let value = part.values.get(key)?;
        let uses = value.uses().load(Ordering::Relaxed);
        if uses < MAX_USES {
            value.uses().store(uses + 1, Ordering::Relaxed);
        }
        first(value).or_else(|| {
            let (value, slot) = part.values.get_both(key)?;
            second(value, &slot.rest)
        })
    }

    /// Looks at the value under a key without using it.
    pub(crate) fn peek<T>(&self, key: u64, look: impl FnOnce(&V, &R) -> T) -> Option<T> {
        let part = self.part(key).read();
        let (value, slot) = part.values.get_both(key)?;
        Some(look(value, &slot.rest))
    }

    /// Puts a value under a key, and makes room for its bytes.
    pub(crate) fn insert(&self, key: u64, value: (V, R), bytes: u64) -> Left<V, R> {
        self.part(key).write().insert(key, value, bytes)
    }

    /// Takes the value under a key out.
    pub(crate) fn remove(&self, key: u64) -> Option<(V, R)> {
        self.part(key).write().remove(key)
    }

    /// Takes everything out.
    pub(crate) fn drain(&self) -> Vec<(V, R)> {
        let empty = |part: &RwLock<Part<V, R>>| {
            let mut part = part.write();
            let size = part.size;
            std::mem::replace(&mut *part, Part::new(size))
        };
        let parts = self.parts.iter().map(empty);
        parts
            .flat_map(|part| part.values.into_values().map(|(value, slot)| (value, slot.rest)))
            .collect()
    }

    /// How many values there are, and their bytes.
    pub(crate) fn figures(&self) -> (u64, u64) {
        self.parts
            .iter()
            .map(|part| part.read().figures())
            .fold((0, 0), |(count, bytes), part| (count + part.0, bytes + part.1))
    }

    fn part(&self, key: u64) -> &RwLock<Part<V, R>> {
        // A part's own table takes the lower half.
        let at = usize::try_from(key >> 32).unwrap_or_default() & (self.parts.len() - 1);
        self.parts.get(at).unwrap_or_else(|| unreachable!("a mask of the length"))
    }
}

// === impl Part ===

impl<V: Used, R> Part<V, R> {
    fn new(size: u64) -> Part<V, R> {
        Part {
            size,
            values: Cells::new(),
            small: Queue::default(),
            main: Queue::default(),
            ghosts: HashSet::default(),
            ghost_order: VecDeque::new(),
            next_turn: 0,
        }
    }

    fn figures(&self) -> (u64, u64) {
        (self.values.len() as u64, self.small.bytes + self.main.bytes)
    }

    fn insert(&mut self, key: u64, (value, rest): (V, R), bytes: u64) -> Left<V, R> {
        let mut left = Left { replaced: None, evicted: Vec::new() };
        if bytes > self.size {
            left.replaced = self.remove(key);
            left.evicted.push((value, rest));
            return left;
        }
        if let Some((present, slot)) = self.values.get_mut(key) {
            let queue = if slot.is_main { &mut self.main } else { &mut self.small };
            queue.bytes = queue.bytes - slot.bytes + bytes;
            slot.bytes = bytes;
            value.uses().store(present.uses().load(Ordering::Relaxed), Ordering::Relaxed);
            let rest = std::mem::replace(&mut slot.rest, rest);
            left.replaced = Some((std::mem::replace(present, value), rest));
        } else {
            self.next_turn = self.next_turn.wrapping_add(1);
            let (turn, is_main) = (self.next_turn, self.ghosts.remove(&key));
            let queue = if is_main { &mut self.main } else { &mut self.small };
            queue.order.push_back((key, turn));
            queue.bytes += bytes;
            value.uses().store(0, Ordering::Relaxed);
            self.values.add(key, value, Slot { rest, bytes, turn, is_main });
        }
        while self.small.bytes + self.main.bytes > self.size {
            let Some(gone) = self.evict() else { break };
            left.evicted.push(gone);
        }
        self.tidy();
        left
    }

    fn remove(&mut self, key: u64) -> Option<(V, R)> {
        let (value, slot) = self.values.remove(key)?;
        let queue = if slot.is_main { &mut self.main } else { &mut self.small };
        queue.bytes -= slot.bytes;
        self.tidy();
        Some((value, slot.rest))
    }

    /// Takes the next out that has to go.
    fn evict(&mut self) -> Option<(V, R)> {
        loop {
            let new = self.small.bytes > self.size / SMALL_SHARE || self.main.bytes == 0;
            let queue = if new { &mut self.small } else { &mut self.main };
            let (key, turn) = queue.order.pop_front()?;
            let found = self.values.get_mut(key).filter(|(_, slot)| slot.is_at(new, turn));
            let Some((value, slot)) = found else { continue };
            let uses = value.uses().load(Ordering::Relaxed);
            if new && uses > USES_TO_STAY {
                value.uses().store(0, Ordering::Relaxed);
                slot.is_main = true;
                self.small.bytes -= slot.bytes;
                self.main.bytes += slot.bytes;
                self.main.order.push_back((key, turn));
            } else if !new && uses > 0 {
                value.uses().store(uses - 1, Ordering::Relaxed);
                self.main.order.push_back((key, turn));
            } else {
                if new {
                    self.remember(key);
                }
                return self.remove(key);
            }
        }
    }

    /// Remembers a key as long as about as many others have left as there are values.
    fn remember(&mut self, key: u64) {
        if self.ghosts.insert(key) {
            self.ghost_order.push_back(key);
        }
        while self.ghost_order.len() > self.values.len() {
            let Some(oldest) = self.ghost_order.pop_front() else { break };
            self.ghosts.remove(&oldest);
        }
    }

    /// Keeps what is taken out from leaving its places in the queues for ever.
    fn tidy(&mut self) {
        let values = &self.values;
        if self.small.order.len() + self.main.order.len() <= 2 * values.len() + SPARE_PLACES {
            return;
        }
        for (queue, new) in [(&mut self.small, true), (&mut self.main, false)] {
            queue.order.retain(|(key, turn)| {
                values.get_both(*key).is_some_and(|(_, slot)| slot.is_at(new, *turn))
            });
        }
    }
}

// === impl Slot ===

impl<R> Slot<R> {
    fn is_at(&self, new: bool, turn: u32) -> bool {
        self.is_main != new && self.turn == turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Debug)]
    struct Value(u64, AtomicU8);

    impl Used for Value {
        fn uses(&self) -> &AtomicU8 {
            &self.1
        }
    }

    /// A map of numbers, with their doubles as what is seldom looked at.
    struct Numbers(Fifo<Value, u64>);

    fn number(pair: (Value, u64)) -> u64 {
        assert_eq!(pair.0.0 * 2, pair.1);
        pair.0.0
    }

    impl Numbers {
        fn get(&self, key: u64) -> Option<u64> {
            self.0.get(key, |value| Some(value.0), |_, _| None)
        }

        fn peek(&self, key: u64) -> Option<u64> {
            self.0.peek(key, |value, double| *double - value.0)
        }

        fn insert(&self, key: u64, value: u64, bytes: u64) -> (Option<u64>, Vec<u64>) {
            let left = self.0.insert(key, (Value(value, AtomicU8::new(9)), value * 2), bytes);
            (left.replaced.map(number), left.evicted.into_iter().map(number).collect())
        }

        fn remove(&self, key: u64) -> Option<u64> {
            self.0.remove(key).map(number)
        }
    }

    fn one(bytes: u64) -> Numbers {
        Numbers(Fifo::new(bytes, 0))
    }

    fn fill(map: &Numbers, keys: std::ops::Range<u64>) -> Vec<u64> {
        keys.flat_map(|key| map.insert(key, key, 1).1).collect()
    }

    #[test]
    fn the_rest_is_looked_at_where_the_value_does_not_answer() {
        let map = one(100);
        map.insert(1, 7, 1);
        let both = map.0.get(1, |_| None, |value, double| Some((value.0, *double)));
        assert_eq!(both, Some((7, 14)));
    }

    #[test]
    fn what_was_used_twice_while_it_was_new_outlives_a_scan() {
        let map = one(100);
        fill(&map, 0..10);
        for key in 0..5 {
            assert_eq!((map.get(key), map.get(key)), (Some(key), Some(key)));
        }
        fill(&map, 1_000..2_000);
        let kept: Vec<u64> = (0..10).filter(|key| map.peek(*key).is_some()).collect();
        assert_eq!(kept, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_comes_again_soon_after_it_left_stays() {
        let map = one(100);
        let gone = fill(&map, 0..150);
        let again = gone[gone.len() - 1];
        map.insert(again, again, 1);
        fill(&map, 1_000..1_300);
        assert_eq!(map.peek(again), Some(again));
        assert_eq!(map.peek(140), None, "one that came once");
    }

    #[test]
    fn what_is_not_used_again_leaves_in_the_end() {
        let map = one(100);
        fill(&map, 0..90);
        for key in 0..90 {
            map.get(key);
            map.get(key);
        }
        // Everything earns its stay, and is not used again; others then do.
        for round in 1..20 {
            for key in round * 100..round * 100 + 90 {
                map.insert(key, key, 1);
                map.get(key);
                map.get(key);
            }
        }
        assert!((0..90).all(|key| map.peek(key).is_none()));
    }

    #[test]
    fn a_value_takes_the_place_of_another_one_and_too_large_a_one_takes_none() {
        let map = one(100);
        assert_eq!(map.insert(1, 10, 60), (None, vec![]));
        assert_eq!(map.insert(1, 11, 70), (Some(10), vec![]));
        assert_eq!(map.0.figures(), (1, 70));
        assert_eq!(map.insert(1, 12, 101), (Some(11), vec![12]));
        assert_eq!((map.0.figures(), map.peek(1)), ((0, 0), None));
    }

    #[test]
    fn what_is_taken_out_leaves_no_place_behind() {
        let map = one(100);
        for key in 0..100_000 {
            map.insert(key % 7, key, 1);
            map.remove(key % 7);
        }
        let part = map.0.parts[0].read();
        assert!(part.small.order.len() <= SPARE_PLACES, "{}", part.small.order.len());
    }

    proptest! {
        /// Whatever is done: the size holds, nothing is lost or kept twice, and the sums are right.
        #[test]
        fn the_size_holds_and_nothing_is_lost(
            work in prop::collection::vec((0u8..4, 0u64..40, 1u64..30), 1..400)
        ) {
            let map = one(100);
            let mut present: HashMap<u64, (u64, u64)> = HashMap::new();
            for (number, (what, key, bytes)) in work.into_iter().enumerate() {
                let value = key * 1_000 + number as u64;
                match what {
                    0 | 1 => {
                        let left = map.insert(key, value, bytes);
                        prop_assert_eq!(left.0, present.insert(key, (value, bytes)).map(|p| p.0));
                        for gone in left.1 {
                            let was = present.retain_of(gone);
                            prop_assert!(was);
                        }
                    }
                    2 => prop_assert_eq!(map.remove(key), present.remove(&key).map(|p| p.0)),
                    _ => prop_assert_eq!(map.get(key), present.get(&key).map(|p| p.0)),
                }
                let bytes: u64 = present.values().map(|p| p.1).sum();
                prop_assert_eq!(map.0.figures(), (present.len() as u64, bytes));
                prop_assert!(bytes <= 100);
                let part = map.0.parts[0].read();
                prop_assert!(part.ghost_order.len() <= 100 && part.ghosts.len() <= part.ghost_order.len());
            }
            let mut all: Vec<u64> = map.0.drain().into_iter().map(number).collect();
            let mut expected: Vec<u64> = present.values().map(|p| p.0).collect();
            all.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }

    trait RetainOf {
        fn retain_of(&mut self, value: u64) -> bool;
    }

    impl RetainOf for HashMap<u64, (u64, u64)> {
        /// Takes out the one with this value; whether it was there.
        fn retain_of(&mut self, value: u64) -> bool {
            let before = self.len();
            self.retain(|_, present| present.0 != value);
            self.len() + 1 == before
        }
    }
}
