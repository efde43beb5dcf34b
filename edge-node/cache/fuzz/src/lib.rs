//! What fuzzing feeds to the cache's parsers; holds no fuzzer.

pub mod targets;
