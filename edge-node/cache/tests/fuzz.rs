//! The fuzz targets, run for a short time on damaged and on random input. `VERGE_FUZZ_ROUNDS` makes it
//! longer.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::panic::catch_unwind;

/// Inputs for each target.
const ROUNDS: usize = 20_000;
const MAX_LENGTH: usize = 400;

/// Xorshift: the same inputs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        const LIKELY: &[u8] = b"\"\\,;=-*/.%#?&: \t\n0123456789azAZ\0\x7f\xff";
        if self.below(4) == 0 { self.next() as u8 } else { LIKELY[self.below(LIKELY.len())] }
    }

    fn input(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        if self.below(8) == 0 {
            let length = self.below(60);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut input = seeds[self.below(seeds.len())].to_vec();
        for _ in 0..=self.below(6) {
            self.damage(&mut input, seeds);
        }
        input.truncate(MAX_LENGTH);
        input
    }

    fn damage(&mut self, input: &mut Vec<u8>, seeds: &[&[u8]]) {
        let at = self.below(input.len() + 1);
        match self.below(7) {
            0 => input.insert(at, self.byte()),
            1 if at < input.len() => input[at] = self.byte(),
            2 if at < input.len() => input[at] ^= 1 << self.below(8),
            3 if at < input.len() => {
                let end = (at + 1 + self.below(8)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + self.below(20)).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy.repeat(1 + self.below(3)));
            }
            5 => {
                let other = seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
}

fn rounds() -> usize {
    std::env::var("VERGE_FUZZ_ROUNDS").ok().map_or(ROUNDS, |text| text.parse().unwrap())
}

/// Feeds a target; the input that it fails on is in the message.
fn run(name: &str, target: fn(&[u8]), seeds: &[&[u8]]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in seeds {
        target(seed);
    }
    for _ in 0..rounds() {
        let input = random.input(seeds);
        let fed = catch_unwind(|| target(&input));
        assert!(fed.is_ok(), "{name} fails on b\"{}\"", input.escape_ascii());
    }
}

#[test]
fn no_input_breaks_a_target() {
    std::thread::scope(|scope| {
        for (name, target, seeds) in targets::ALL {
            scope.spawn(move || run(name, *target, seeds));
        }
    });
}

/// Damage alone would hide a seed that is none.
#[test]
fn seeds_are_what_they_are_said_to_be() {
    targets::ALL.iter().for_each(|(_, target, seeds)| seeds.iter().for_each(|seed| target(seed)));
}

/// The control: a target that breaks on one of a few bytes is caught.
#[test]
#[should_panic(expected = "broken fails on")]
fn a_broken_target_is_caught() {
    run("broken", |data| assert!(!data.contains(&b'\\')), &[b"abc"]);
}
