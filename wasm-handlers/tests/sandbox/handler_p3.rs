//! `wasi:http/handler@0.3`: the same promises as for the older contract, and instances that serve again.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use verge_config::site::HandlerLimits;
use verge_handlers::{End, Handler, LogStream};

use crate::support::{Recorder, component, failure, full, get, guest, handler, roomy, spec, text};

const GUEST: &str = "hello-p3-rust";

async fn ask(handler: &Handler, path: &str) -> String {
    text(handler.call(get(path), Recorder::new()).await.unwrap()).await
}

#[tokio::test]
async fn it_answers_with_its_environment_and_a_known_length() {
    let spec = spec(roomy(), &[("GREETING", "Salut")]);
    let handler = Handler::new(component(GUEST).await, "site".into(), spec);
    let host = Recorder::new();
    let response = handler.call(get("/"), host.clone()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.headers()[CONTENT_LENGTH], "23", "short content is whole before its head");
    assert_eq!(text(response).await, "Salut\nHello from Verge\n");
    let (end, usage) = host.end().await;
    assert_eq!(end, End::Responded);
    assert!(usage.cpu > Duration::ZERO && usage.peak_memory > 0, "{usage:?}");
}

#[tokio::test]
async fn content_streams_through_it() {
    let handler = handler(GUEST, roomy()).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let request = Request::post("http://site.test/echo").body(body.boxed_unsync()).unwrap();
    let call = tokio::spawn(async move { handler.call(request, Recorder::new()).await });
    let frame =
        |text: &'static str| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())));
    sender.send(frame("one ")).await.unwrap();
    let mut body = call.await.unwrap().unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one ", "before the rest was sent");
    sender.send(frame("two")).await.unwrap();
    drop(sender);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "two");
}

#[tokio::test]
async fn large_content_comes_through_whole() {
    let handler = handler(GUEST, roomy()).await;
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let request = Request::post("http://site.test/echo").body(full(sent.clone())).unwrap();
    let response = handler.call(request, Recorder::new()).await.unwrap();
    let got = response.into_body().collect().await.unwrap().to_bytes();
    assert!(got == sent, "{} bytes", got.len());
}

#[tokio::test]
async fn it_fetches() {
    let handler = handler(GUEST, roomy()).await;
    let host = Recorder::new();
    let response = handler.call(get("/fetch?path=/x"), host.clone()).await.unwrap();
    assert_eq!(response.headers()["x-handler"], "hello");
    assert_eq!(text(response).await, "origin's /x");
    assert_eq!(host.end().await.1.fetches, 1);
}

#[tokio::test]
async fn trailers_come_behind_the_content() {
    let handler = handler(GUEST, roomy()).await;
    let response = handler.call(get("/trailers"), Recorder::new()).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "content\n");
}

/// What `/count` says for five requests, one after the other.
async fn counts(requests: u32) -> Vec<String> {
    let handler = handler(GUEST, HandlerLimits { requests, ..roomy() }).await;
    let mut counts = Vec::new();
    for _ in 0..5 {
        counts.push(ask(&handler, "/count").await);
    }
    counts
}

#[tokio::test]
async fn an_instance_serves_as_many_requests_as_it_may() {
    assert_eq!(counts(1).await, ["1", "1", "1", "1", "1"]);
    assert_eq!(counts(2).await, ["1", "2", "1", "2", "1"]);
    assert_eq!(counts(128).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn no_instance_serves_two_handlers_or_two_requests_at_once() {
    let (one, other) = (handler(GUEST, roomy()).await, handler(GUEST, roomy()).await);
    assert_eq!(ask(&one, "/count").await, "1");
    assert_eq!(ask(&other, "/count").await, "1", "another handler of the same component");
    assert_eq!(ask(&one.clone(), "/count").await, "2", "a clone is the same handler");
    // Its content is not read yet: the instance is still at work.
    let unread = one.call(get("/echo"), Recorder::new()).await.unwrap();
    let hold = {
        let (sender, receiver) =
            tokio::sync::mpsc::channel::<Result<http_body::Frame<Bytes>, _>>(1);
        let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let request = Request::post("http://site.test/echo").body(body.boxed_unsync()).unwrap();
        sender.send(Ok(http_body::Frame::data("x".into()))).await.unwrap();
        (sender, one.call(request, Recorder::new()).await.unwrap())
    };
    assert_eq!(ask(&one, "/count").await, "1", "a fresh one, while the other is at work");
    drop((unread, hold));
}

#[tokio::test]
async fn each_request_has_its_own_log() {
    let handler = handler(GUEST, roomy()).await;
    for served in 1..=3 {
        let host = Recorder::new();
        assert_eq!(text(handler.call(get("/log"), host.clone()).await.unwrap()).await, "logged\n");
        assert_eq!(host.end().await.0, End::Responded);
        assert_eq!(host.lines(LogStream::Stdout), [format!("served {served}")]);
    }
}

#[tokio::test]
async fn it_may_work_on_behind_its_response() {
    let handler = handler(GUEST, roomy()).await;
    let host = Recorder::new();
    assert_eq!(text(handler.call(get("/after"), host.clone()).await.unwrap()).await, "whole\n");
    assert_eq!(host.end().await.0, End::Responded);
    assert_eq!(host.lines(LogStream::Stdout), ["after the response"]);
    assert_eq!(ask(&handler, "/count").await, "2", "and serve again");
}

#[tokio::test]
async fn every_limit_ends_its_request_and_the_instance() {
    let limits = HandlerLimits {
        cpu: Duration::from_millis(50),
        wall: Duration::from_millis(500),
        memory: 16 << 20,
        ..roomy()
    };
    let handler = handler(GUEST, limits).await;
    let cases = [
        ("/spin", "out_of_cpu"),
        ("/slow", "timed_out"),
        ("/grow", "out_of_memory"),
        ("/trap", "trapped"),
        ("/error", "guest_error"),
    ];
    for (path, name) in cases {
        let served = ask(&handler, "/count").await;
        let (ended, _) = failure(&handler, path).await;
        assert_eq!(ended.name(), name, "{path}: {ended}");
        assert_eq!(served, "1", "no instance outlives a failure: before {path}");
    }
    assert_eq!(ask(&handler, "/count").await, "1");
    assert_eq!(ask(&handler, "/count").await, "2", "for control: what did not fail serves again");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_it() {
    let handler = handler(GUEST, roomy()).await;
    let host = Recorder::new();
    let call = handler.call(get("/slow"), host.clone());
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    assert_eq!(host.end().await.0, End::Cancelled);
    assert_eq!(ask(&handler, "/count").await, "1");
}

#[tokio::test]
async fn the_compiler_child_knows_both_contracts() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = verge_handlers::Sandbox::new(crate::support::settings(folder.path())).unwrap();
    for name in ["hello-rust", GUEST] {
        let component = sandbox.load(guest(name)).await.unwrap();
        let handler = Handler::new(component, "site".into(), spec(roomy(), &[]));
        assert_eq!(ask(&handler, "/").await, "Hello from Verge\n", "{name}");
    }
}
