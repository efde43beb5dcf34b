//! A table by 64-bit hashes in which finding a value touches one place in memory, and what is seldom
//! looked at lies apart. Knows nothing of what it holds; for one user at a time.

/// The least room.
const MIN_CELLS: usize = 64;

/// Open addressing with linear probing, at most three quarters full. The hashes must be evenly spread, and
/// nobody outside may choose them.
#[derive(Debug)]
pub(crate) struct Cells<V, S> {
    hot: Vec<Option<(u64, V)>>,
    cold: Vec<Option<S>>,
    count: usize,
}

impl<V, S> Cells<V, S> {
    /// An empty table.
    pub(crate) fn new() -> Cells<V, S> {
        Cells { hot: Vec::new(), cold: Vec::new(), count: 0 }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The value under a hash.
    pub(crate) fn get(&self, hash: u64) -> Option<&V> {
        self.find(hash).map(|(_, value)| value)
    }

    /// The same, and what lies apart.
    pub(crate) fn get_both(&self, hash: u64) -> Option<(&V, &S)> {
        let (at, value) = self.find(hash)?;
        Some((value, self.cold.get(at)?.as_ref()?))
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, hash: u64) -> Option<(&mut V, &mut S)> {
        let (at, _) = self.find(hash)?;
        let (_, value) = self.hot.get_mut(at)?.as_mut()?;
        Some((value, self.cold.get_mut(at)?.as_mut()?))
    }

    /// Puts a value under a hash that has none.
    pub(crate) fn add(&mut self, hash: u64, value: V, apart: S) {
        if (self.count + 1) * 4 > self.hot.len() * 3 {
            self.grow();
        }
        self.place(hash, value, apart);
        self.count += 1;
    }

    /// Takes the value under a hash out.
    pub(crate) fn remove(&mut self, hash: u64) -> Option<(V, S)> {
        let (mut hole, _) = self.find(hash)?;
        let (_, value) = self.hot.get_mut(hole)?.take()?;
        let apart = self.cold.get_mut(hole)?.take()?;
        self.count -= 1;
        // What was put behind it for want of this place moves up, so that no search ends too early.
        let mut at = hole;
        loop {
            at = self.after(at);
            let Some(Some((other, _))) = self.hot.get(at) else { break };
            let from_home = self.distance(self.home(*other), at);
            if from_home >= self.distance(hole, at) {
                self.hot.swap(hole, at);
                self.cold.swap(hole, at);
                hole = at;
            }
        }
        Some((value, apart))
    }

    /// Takes everything out.
    pub(crate) fn into_values(self) -> impl Iterator<Item = (V, S)> {
        let hot = self.hot.into_iter().map(|cell| cell.map(|(_, value)| value));
        hot.zip(self.cold).filter_map(|(value, apart)| Some((value?, apart?)))
    }

    fn find(&self, hash: u64) -> Option<(usize, &V)> {
        if self.hot.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            match self.hot.get(at)? {
                Some((other, value)) if *other == hash => return Some((at, value)),
                Some(_) => at = self.after(at),
                None => return None,
            }
        }
    }

    fn place(&mut self, hash: u64, value: V, apart: S) {
        let mut at = self.home(hash);
        while self.hot.get(at).is_some_and(Option::is_some) {
            at = self.after(at);
        }
        if let (Some(hot), Some(cold)) = (self.hot.get_mut(at), self.cold.get_mut(at)) {
            *hot = Some((hash, value));
            *cold = Some(apart);
        }
    }

    fn grow(&mut self) {
        let room = (self.hot.len() * 2).max(MIN_CELLS);
        let hot =
            std::mem::replace(&mut self.hot, std::iter::repeat_with(|| None).take(room).collect());
        let cold =
            std::mem::replace(&mut self.cold, std::iter::repeat_with(|| None).take(room).collect());
        for (cell, apart) in hot.into_iter().zip(cold) {
            if let (Some((hash, value)), Some(apart)) = (cell, apart) {
                self.place(hash, value, apart);
            }
        }
    }

    fn mask(&self) -> usize {
        self.hot.len().wrapping_sub(1)
    }

    fn home(&self, hash: u64) -> usize {
        usize::try_from(hash & 0xffff_ffff).unwrap_or_default() & self.mask()
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// With many hashes that share a home, it does what a map does.
        #[test]
        fn it_is_a_map(work in prop::collection::vec((0u8..3, 0u64..200), 1..1_000)) {
            let (mut cells, mut map) = (Cells::new(), HashMap::new());
            for (number, (what, key)) in work.into_iter().enumerate() {
                // Eight homes, the last of which runs over the end of the table.
                let hash = (key << 40) | (key % 8) | if key % 3 == 0 { 0x3c } else { 0 };
                match what {
                    0 => prop_assert_eq!(cells.remove(hash), map.remove(&hash)),
                    1 if !map.contains_key(&hash) => {
                        cells.add(hash, number, key);
                        map.insert(hash, (number, key));
                    }
                    _ => {
                        let found = cells.get_mut(hash).map(|(value, apart)| {
                            *value += 1;
                            (*value, *apart)
                        });
                        let expected = map.get_mut(&hash).map(|(value, apart)| {
                            *value += 1;
                            (*value, *apart)
                        });
                        prop_assert_eq!(found, expected);
                    }
                }
                prop_assert_eq!(cells.len(), map.len());
                for (hash, (value, apart)) in &map {
                    prop_assert_eq!(cells.get(*hash), Some(value));
                    prop_assert_eq!(cells.get_both(*hash), Some((value, apart)));
                }
            }
            let mut all: Vec<_> = cells.into_values().collect();
            let mut expected: Vec<_> = map.into_values().collect();
            all.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }

    #[test]
    fn a_cell_of_a_reference_is_two_words() {
        assert_eq!(size_of::<Option<(u64, std::sync::Arc<u8>)>>(), 16);
    }
}
