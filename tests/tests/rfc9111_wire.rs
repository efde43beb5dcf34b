//! The RFCs of HTTP caching, statement by statement, over sockets: 9110 (semantics), 9111 (caching),
//! 9211 (Cache-Status), 9213 (targeted fields), 5861 (stale), 8246 (immutable). Each group of cases runs
//! with clients of both versions of HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod wire;

use wire::lab::{Lab, Setup};

/// Runs each group by HTTP/1.1, by HTTP/2, and from disk.
macro_rules! groups {
    ($($name:ident: $room:ident::$group:ident;)*) => {$(
        mod $name {
            use super::wire;
            use super::{Lab, Setup};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn http1() {
                let lab = Lab::start(Setup { http2: false, disk: false }).await;
                wire::$room::$group(&lab).await;
                lab.finish();
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn http2() {
                let lab = Lab::start(Setup { http2: true, disk: false }).await;
                wire::$room::$group(&lab).await;
                lab.finish();
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn from_disk() {
                let lab = Lab::start(Setup { http2: false, disk: true }).await;
                wire::$room::$group(&lab).await;
                lab.finish();
            }
        }
    )*};
}

groups! {
    what_is_stored: storing::what_is_stored;
    which_fields_are_stored: storing::which_fields;
    keys: storing::keys;
    vary: storing::vary;
    interim_responses: storing::interim;
    lifetimes: freshness::lifetimes;
    targeted: freshness::targeted;
    ages: freshness::ages;
    serving_stale: stale::allowed_and_forbidden;
    revalidating_behind: stale::while_revalidate;
    preconditions: validation::preconditions;
    ranges: validation::ranges;
    freshening: validation::freshening;
    parts_completed: parts::completed;
    parts_unfit: parts::unfit;
    parts_left_alone: parts::left_alone;
    parts_under_way: parts::under_way;
    another_tag_asked_again: another_tag::asked_again;
    another_tag_the_same: another_tag::the_same;
    not_modified_fields: validation::not_modified_fields;
    directives_of_requests: requests::directives;
    methods: requests::methods;
    unsafe_methods: invalidation::unsafe_methods;
    cache_status_members: cache_status::members;
    cache_status_of_own_answers: cache_status::own_answers;
}
