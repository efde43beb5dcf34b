//! Fuzzes `record`; what it does stands in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| verge_cache_fuzz::targets::record(data));
