//! Origins that fail: each failure has its name, costs no more than its time, and poisons nothing.

use super::support::*;
use bytes::Bytes;
use http::Method;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use verge_edge::body;
use verge_edge::origin::{OriginError, OriginPool};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The failure of a GET, in its header section or its content.
async fn failure(pool: &OriginPool) -> OriginError {
    match fetch(pool).await {
        Ok((status, content)) => panic!("{status} with {content:?} was accepted"),
        Err(error) => error,
    }
}

/// An address on which nothing listens.
async fn closed_port() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_told_at_once() {
    let address = closed_port().await;
    let error = failure(&pool_to(address, patient())).await;
    assert_eq!(error, OriginError::ConnectionRefused { address });
    assert_eq!((error.status().as_u16(), error.proxy_status_error()), (502, "connection_refused"));
}

#[tokio::test]
async fn an_origin_that_never_answers_costs_the_first_byte_time() {
    // The system accepts; nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = pool_to(listener.local_addr().unwrap(), quick());
    let began = Instant::now();
    let error = failure(&pool).await;
    assert!(matches!(error, OriginError::FirstByteTimeout { .. }), "{error}");
    assert_eq!(
        (error.status().as_u16(), error.proxy_status_error()),
        (504, "http_response_timeout")
    );
    let took = began.elapsed();
    assert!(took >= quick().first_byte && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_header_section_that_trickles_costs_no_more_than_the_first_byte_time() {
    let origin = Scripted::start(|_, _| Act::SayAndHang("HTTP/1.1 200 OK\r\nX-A: ".into())).await;
    let error = failure(&pool_to(origin.address, quick())).await;
    assert!(matches!(error, OriginError::FirstByteTimeout { .. }), "{error}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_costs_the_connect_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut to = url("127.0.0.1", listener.local_addr().unwrap().port());
    to.tls = true;
    let pool = pool_of(origin(vec![to], quick()), settings());
    let began = Instant::now();
    // Those who wait for the first one's handshake wait no longer than it.
    for error in futures::future::join_all((0..20).map(|_| failure(&pool))).await {
        assert!(matches!(error, OriginError::ConnectTimeout { .. }), "{error}");
        assert_eq!(
            (error.status().as_u16(), error.proxy_status_error()),
            (504, "connection_timeout")
        );
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn content_that_stops_is_an_error_in_the_content() {
    let partial = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let origin = Scripted::start(move |_, _| Act::SayAndHang(partial.into())).await;
    let error = failure(&pool_to(origin.address, quick())).await;
    assert!(matches!(error, OriginError::BetweenBytesTimeout { .. }), "{error}");
    assert_eq!(error.status(), 504);
}

#[tokio::test]
async fn content_that_ends_early_is_never_taken_for_whole() {
    for partial in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let origin = Scripted::start(move |_, _| Act::SayAndClose(partial.into())).await;
        let error = failure(&pool_to(origin.address, patient())).await;
        assert!(matches!(error, OriginError::Incomplete { .. }), "{partial:?}: {error:?}");
        assert_eq!(error.proxy_status_error(), "http_response_incomplete");
    }
    // The control: content that only the close ends is whole.
    let closing = "HTTP/1.1 200 OK\r\n\r\nhello";
    let origin = Scripted::start(move |_, _| Act::SayAndClose(closing.into())).await;
    let answer = fetch(&pool_to(origin.address, patient())).await.unwrap();
    assert_eq!(answer, (200, Bytes::from("hello")));
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let many: String = (0..201).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = "x".repeat(200 * 1024);
    let heads = [
        "garbage\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "HTTP/1.1 abc OK\r\n\r\n".to_owned(),
        "HTTP/1.1 20 OK\r\n\r\n".to_owned(),
        "HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
        "<html>an answer of HTTP/0.9</html>".to_owned(),
        "HTTP/1.1 200 OK\r\nNo colon\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX : space\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {large}\r\nContent-Length: 0\r\n\r\n"),
    ];
    for head in heads {
        let shown: String = head.chars().take(90).collect();
        let origin = Scripted::start(move |_, _| Act::SayAndClose(head.clone().into())).await;
        let pool = pool_to(origin.address, patient());
        let error = failure(&pool).await;
        assert!(
            matches!(error, OriginError::Protocol { .. } | OriginError::HeadTooLarge),
            "{shown:?}: {error:?}"
        );
        assert_eq!(error.status(), 502, "{shown:?}");
        assert_eq!(origin.connections(), 1, "{shown:?} is not worth asking for twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_after_a_response_never_become_the_next_one() {
    let poisoned = format!("{HELLO}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    for _ in 0..200 {
        let poisoned = poisoned.clone();
        let origin = Scripted::start(move |turn, _| match turn.connection {
            0 if turn.request == 0 => Act::Say(poisoned.clone().into()),
            _ => Act::Say(HELLO.into()),
        })
        .await;
        let pool = pool_to(origin.address, patient());
        for _ in 0..4 {
            assert_eq!(fetch(&pool).await.unwrap().1, "hello");
        }
    }
}

#[tokio::test]
async fn a_half_read_response_is_never_continued_by_the_next_request() {
    let origin = Scripted::start(|turn, _| match (turn.connection, turn.request) {
        (0, 0) => Act::SayThenWait(
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".into(),
            vec![b'x'; 96],
        ),
        _ => Act::Say(HELLO.into()),
    })
    .await;
    let pool = pool_to(origin.address, patient());
    let response = pool.send(get("/"), &hop()).await.unwrap();
    drop(response);
    origin.go_on.notify_one();
    for _ in 0..3 {
        assert_eq!(fetch(&pool).await.unwrap().1, "hello");
    }
}

#[tokio::test]
async fn what_was_lost_before_any_answer_is_asked_once_more_if_that_is_safe() {
    let lossy = || {
        Scripted::start(|turn, _| match (turn.connection, turn.request) {
            (0, 1) => Act::SayAndClose(Vec::new()),
            _ => Act::Say(HELLO.into()),
        })
    };
    let origin = lossy().await;
    let pool = pool_to(origin.address, patient());
    assert_eq!(fetch(&pool).await.unwrap().1, "hello");
    assert_eq!(fetch(&pool).await.unwrap().1, "hello", "on a connection that was closed meanwhile");
    assert_eq!((origin.connections(), origin.seen().len()), (2, 3));

    // With content, or with a method that may act twice, it is not.
    for (method, content) in [(Method::POST, ""), (Method::PUT, "content"), (Method::PATCH, "")] {
        let origin = lossy().await;
        let pool = pool_to(origin.address, patient());
        fetch(&pool).await.unwrap();
        let content = if content.is_empty() { body::empty() } else { body::full(content) };
        let error = pool.send(request(method, "/", content), &hop()).await.unwrap_err();
        assert!(matches!(error, OriginError::ClosedEarly { .. }), "{error}");
        assert_eq!((origin.connections(), origin.seen().len()), (1, 2));
    }
}

#[tokio::test]
async fn an_origin_that_always_closes_is_asked_twice_and_no_more() {
    let origin = Scripted::start(|_, _| Act::SayAndClose(Vec::new())).await;
    let error = failure(&pool_to(origin.address, patient())).await;
    assert!(matches!(error, OriginError::ClosedEarly { .. }), "{error}");
    assert_eq!(
        (error.status().as_u16(), error.proxy_status_error()),
        (502, "connection_terminated")
    );
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_dead_address_is_passed_over_for_requests_of_any_method() {
    let dead = closed_port().await;
    let alive = Scripted::always(HELLO).await;
    let urls = vec![url("127.0.0.1", dead.port()), url("127.0.0.1", alive.address.port())];
    let pool = pool_of(origin(urls, patient()), settings());
    for n in 0..40 {
        let post = request(Method::POST, "/", body::full(format!("{n}")));
        let response = pool.send(post, &hop()).await.unwrap();
        assert_eq!(read(response).await.unwrap(), "hello");
    }
    assert_eq!(alive.seen().len(), 40);
}

#[tokio::test]
async fn when_all_addresses_are_dead_the_failure_is_the_last_ones() {
    let urls = vec![
        url("127.0.0.1", closed_port().await.port()),
        url("127.0.0.1", closed_port().await.port()),
    ];
    let pool = pool_of(origin(urls, patient()), settings());
    for _ in 0..3 {
        let error = failure(&pool).await;
        assert!(matches!(error, OriginError::ConnectionRefused { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_error_is_found_through_whatever_wraps_it() {
    let error: verge_edge::body::BoxError = OriginError::HeadTooLarge.into();
    assert_eq!(OriginError::find(error.as_ref()), Some(&OriginError::HeadTooLarge));
    let wrapped = std::io::Error::other(OriginError::HeadTooLarge);
    assert_eq!(OriginError::find(&wrapped), Some(&OriginError::HeadTooLarge));
    assert_eq!(OriginError::find(&std::io::Error::other("else")), None);
}
