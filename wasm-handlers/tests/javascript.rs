//! A component from another tool chain runs unchanged: JavaScript, with its own imports and exports.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::time::Duration;

use support::{Recorder, get, handler, text};
use verge_config::site::HandlerLimits;
use verge_handlers::End;

#[tokio::test]
async fn the_greeting_within_the_default_limits() {
    let handler = handler("hello-js", HandlerLimits::default()).await;
    let host = Recorder::new();
    let answer = handler.call(get("/?ttl=60"), host.clone()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "public, max-age=60");
    assert_eq!(text(answer).await, "Hello from Verge in JavaScript\n");
    let (end, usage) = host.end().await;
    assert_eq!(end, End::Responded);
    println!("{usage:?}");
    assert!(usage.cpu < Duration::from_millis(50));
}

#[tokio::test]
async fn json() {
    let handler = handler("hello-js", HandlerLimits::default()).await;
    let answer = handler.call(get("/json"), Recorder::new()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(text(answer).await, r#"{"from":"Verge","method":"GET","path":"/json"}"#);
}
