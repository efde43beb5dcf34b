//! Well-behaved exchanges: what is sent, what comes back, which connections carry it.

use super::support::*;
use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use verge_edge::body::{self, Body, BoxError};
use verge_edge::origin::{OriginError, Resolver};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";

/// Content that is sent from elsewhere, frame by frame.
fn streamed() -> (tokio::sync::mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
}

#[tokio::test]
async fn a_request_arrives_marked_and_a_response_returns_stripped() {
    let origin = Scripted::always(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nX-End: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nhello",
    )
    .await;
    let pool = pool_to(origin.address, patient());
    let mut request = get("/a%20b/./c?x=1&y");
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
    request.headers_mut().insert("accept", HeaderValue::from_static("text/css"));
    let response = pool.send(request, &hop()).await.unwrap();
    assert_eq!(response.status(), 200);
    let fields = |headers: &HeaderMap| -> Vec<String> {
        let mut all: Vec<_> =
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(
        fields(response.headers()),
        ["content-length: 5", "set-cookie: a=1", "set-cookie: b=2", "x-end: 2"]
    );
    assert_eq!(read(response).await.unwrap(), "hello");
    let seen = origin.seen().remove(0);
    let mut lines: Vec<&str> = seen.split("\r\n").filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.remove(0), "GET /a%20b/./c?x=1&y HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "accept: text/css",
            "cdn-loop: verge;id=edge-test",
            "forwarded: for=192.0.2.33;proto=https;host=\"shop.example\"",
            "host: shop.example",
            "via: 1.1 verge",
            "x-forwarded-for: 192.0.2.33",
            "x-forwarded-host: shop.example",
            "x-forwarded-proto: https",
        ]
    );
}

#[tokio::test]
async fn one_connection_carries_requests_that_follow_one_another() {
    for response in [HELLO, CHUNKED] {
        let origin = Scripted::always(response).await;
        let pool = pool_to(origin.address, patient());
        for _ in 0..20 {
            assert_eq!(fetch(&pool).await.unwrap(), (200, Bytes::from("hello")));
        }
        assert_eq!(origin.seen().len(), 20);
        assert!(origin.connections() <= 2, "{} connections", origin.connections());
    }
    // The control: an origin that closes gets a connection for each.
    let closing = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let origin = Scripted::start(move |_, _| Act::SayAndClose(closing.into())).await;
    let pool = pool_to(origin.address, patient());
    for _ in 0..5 {
        assert_eq!(fetch(&pool).await.unwrap().0, 200);
    }
    assert_eq!(origin.connections(), 5);
}

#[tokio::test]
async fn responses_without_content_give_their_connection_back() {
    for (method, response) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 12345\r\nETag: \"a\"\r\n\r\n"),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let origin = Scripted::always(response).await;
        let pool = pool_to(origin.address, patient());
        for _ in 0..10 {
            let answer =
                pool.send(request(method.clone(), "/", body::empty()), &hop()).await.unwrap();
            if method == Method::HEAD {
                assert_eq!(answer.headers()["content-length"], "12345");
            }
            assert_eq!(read(answer).await.unwrap(), "");
        }
        assert!(origin.connections() <= 3, "{} for {response}", origin.connections());
    }
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each_and_leave_them_to_later_ones() {
    let origin = Scripted::always(HELLO).await;
    let pool = pool_to(origin.address, patient());
    let all = (0..40).map(|_| fetch(&pool));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap().1, "hello");
    }
    let opened = origin.connections();
    assert!((1..=40).contains(&opened));
    for _ in 0..40 {
        fetch(&pool).await.unwrap();
    }
    assert_eq!(origin.connections(), opened);
}

#[tokio::test]
async fn informational_responses_come_before_the_answer() {
    let origin = Scripted::always(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    )
    .await;
    let pool = pool_to(origin.address, patient());
    assert_eq!(fetch(&pool).await.unwrap(), (200, Bytes::from("hello")));
}

#[tokio::test]
async fn content_streams_before_it_is_whole() {
    let first = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n";
    let origin =
        Scripted::start(move |_, _| Act::SayThenWait(first.into(), "2\r\nlo\r\n0\r\n\r\n".into()))
            .await;
    let pool = pool_to(origin.address, patient());
    let mut response = pool.send(get("/"), &hop()).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "hel");
    origin.go_on.notify_one();
    assert_eq!(read(response).await.unwrap(), "lo");
}

#[tokio::test]
async fn uploads_stream_and_arrive_whole() {
    let origin = Scripted::always(HELLO).await;
    let pool = pool_to(origin.address, patient());
    let known = request(Method::POST, "/up", body::full("a=1&b=2"));
    assert_eq!(pool.send(known, &hop()).await.unwrap().status(), 200);
    let (sender, content) = streamed();
    let sending = tokio::spawn(async move {
        for part in ["abc", "def"] {
            sender.send(Ok(Frame::data(Bytes::from(part)))).await.unwrap();
        }
    });
    let unknown = request(Method::PUT, "/up", content);
    assert_eq!(pool.send(unknown, &hop()).await.unwrap().status(), 200);
    sending.await.unwrap();
    let seen = origin.seen();
    assert!(seen[0].contains("content-length: 7\r\n") && seen[0].ends_with("\r\n\r\na=1&b=2"));
    assert!(seen[1].contains("transfer-encoding: chunked\r\n"), "{}", seen[1]);
    let content: String = seen[1].split("\r\n\r\n").nth(1).unwrap().split("\r\n").collect();
    assert_eq!(content, "3abc3def0");
}

#[tokio::test]
async fn a_slow_visitor_is_not_a_slow_origin() {
    let origin = Scripted::always(HELLO).await;
    let pool = pool_to(origin.address, quick());
    let (sender, content) = streamed();
    let sending = tokio::spawn(async move {
        // Each pause is shorter than the origin's time, all together are much longer.
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        for _ in 0..5 {
            ticks.tick().await;
            sender.send(Ok(Frame::data(Bytes::from("x")))).await.unwrap();
        }
        // And one is longer.
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    let began = Instant::now();
    let response = pool.send(request(Method::POST, "/", content), &hop()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(began.elapsed() > Duration::from_millis(1000));
    sending.await.unwrap();
}

#[tokio::test]
async fn a_visitor_who_breaks_off_is_not_the_origins_fault() {
    let origin = Scripted::always(HELLO).await;
    let pool = pool_to(origin.address, patient());
    let (sender, content) = streamed();
    sender.send(Ok(Frame::data(Bytes::from("half")))).await.unwrap();
    tokio::spawn(async move {
        sender.send(Err("the visitor went away".into())).await.unwrap();
    });
    let error = pool.send(request(Method::POST, "/", content), &hop()).await.unwrap_err();
    assert!(matches!(error, OriginError::RequestBody { .. }), "{error}");
    assert_eq!(error.status(), 400);
}

#[tokio::test]
async fn of_several_addresses_of_a_name_one_that_answers_is_enough() {
    let origin = Scripted::always(HELLO).await;
    let resolver = Resolver::with_lookup(Arc::new(|_| {
        // Nothing listens on the port of the first two.
        Ok([[127, 0, 0, 3], [127, 0, 0, 2], [127, 0, 0, 1]].map(IpAddr::from).to_vec())
    }));
    let settings =
        verge_edge::origin::OriginSettings { resolver: Arc::new(resolver), ..settings() };
    let pool = pool_of(
        super::support::origin(vec![url("web.test", origin.address.port())], patient()),
        settings,
    );
    assert_eq!(fetch(&pool).await.unwrap().1, "hello");
}

#[tokio::test]
async fn the_host_is_the_visitors_or_the_origins_own() {
    let origin = Scripted::always(HELLO).await;
    let address = origin.address;
    let mut described =
        super::support::origin(vec![url(&address.ip().to_string(), address.port())], patient());
    described.host = Some("web.internal".to_owned());
    let pool = pool_of(described, settings());
    fetch(&pool).await.unwrap();
    let seen = origin.seen().remove(0);
    assert!(seen.contains("\r\nhost: web.internal\r\n"), "{seen}");
    assert!(seen.contains("\r\nx-forwarded-host: shop.example\r\n"), "{seen}");
}

#[tokio::test]
async fn shares_follow_the_weights() {
    let (light, heavy) = (Scripted::always(HELLO).await, Scripted::always(HELLO).await);
    let mut urls =
        vec![url("127.0.0.1", light.address.port()), url("127.0.0.1", heavy.address.port())];
    urls[1].weight = 9;
    let pool = pool_of(super::support::origin(urls, patient()), settings());
    for _ in 0..300 {
        fetch(&pool).await.unwrap();
    }
    let share = light.seen().len();
    // Thirty are expected; six standard deviations to either side.
    assert!((1..=61).contains(&share), "{share} of 300 for a share of a tenth");
}

#[tokio::test]
async fn content_can_be_read_as_a_stream_of_frames() {
    let origin = Scripted::always(CHUNKED).await;
    let pool = pool_to(origin.address, patient());
    let response = pool.send(get("/"), &hop()).await.unwrap();
    let frames: Vec<_> = response.into_body().into_data_stream().collect().await;
    let whole: Vec<u8> = frames.into_iter().flat_map(|frame| frame.unwrap().to_vec()).collect();
    assert_eq!(whole, b"hello");
}
