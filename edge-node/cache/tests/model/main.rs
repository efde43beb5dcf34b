//! Purges racing with fills and lookups, under more than a million orders of their steps. Needs the feature
//! `model`, with which the cache has the locks of the scheduler: `scripts/test.sh` runs it by itself.

use verge_cache::model;

#[test]
fn no_lookup_after_a_purge_serves_what_was_fetched_before_it() {
    let schedules = model::race_purges_and_fills();
    assert!(schedules >= 1_000_000, "{schedules}");
}

#[test]
fn a_late_epoch_and_a_lookup_that_does_not_ask_are_found() {
    assert_eq!(model::faults_are_found(), [true, true]);
}
