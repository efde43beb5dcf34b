//! Interim responses of origins (RFC 9110 section 15.2): who is sent them, in which protocol, and what
//! of them.

use bytes::Bytes;
use http::Request;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use verge_tests::wait::{until, within};
use verge_tests::{Edge, Origin, site};

const EARLY: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
    HTTP/1.1 102 Processing\r\n\r\n";
const FINAL: &[u8] =
    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\ndone";

/// An origin that sends interim responses at once and the response when it is told to.
async fn early() -> (Origin, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let told = Arc::clone(&go_on);
    let origin = Origin::raw(move |mut stream| {
        let told = Arc::clone(&told);
        async move {
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                stream.write_all(EARLY).await.unwrap();
                told.notified().await;
                stream.write_all(FINAL).await.unwrap();
            }
        }
    })
    .await;
    (origin, go_on)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_come_before_the_response_to_whoever_started_it() {
    let (origin, go_on) = early().await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    for method in ["GET", "POST"] {
        let mut client = edge.client().await;
        let request = format!("{method} /{method} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        client.send(request.as_bytes()).await.unwrap();
        // The response is still to come: nobody waits for it to pass these on.
        let (status, fields) = within("the hints", client.read_head()).await.unwrap();
        assert_eq!((status, fields["link"].to_str().unwrap()), (103, "</a.css>"), "{method}");
        assert!(!fields.contains_key("x-hop") && !fields.contains_key("connection"), "{fields:?}");
        assert_eq!(within("the next", client.read_head()).await.unwrap().0, 102);
        go_on.notify_one();
        let reply = within("a response", client.read_reply(false)).await.unwrap().expect(200);
        assert_eq!(reply.text(), "done");
        assert!(!reply.headers.contains_key("link"), "{reply:?}");
        // The connection goes on.
        if method == "GET" {
            client.send(request.as_bytes()).await.unwrap();
            assert_eq!(within("a hit", client.read_head()).await.unwrap().0, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_another_gets_the_response_alone() {
    let (origin, go_on) = early().await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let request = b"GET /shared HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let mut first = edge.client().await;
    first.send(request).await.unwrap();
    assert_eq!(within("the hints", first.read_head()).await.unwrap().0, 103);
    let mut second = edge.client().await;
    second.send(request).await.unwrap();
    until("both are under way", || async {
        let metrics = edge.admin("/metrics").await.text();
        metrics.contains("verge_front_requests_in_flight 2").then_some(())
    })
    .await;
    go_on.notify_one();
    assert_eq!(within("the response", second.read_head()).await.unwrap().0, 200);
    assert_eq!(within("the next", first.read_head()).await.unwrap().0, 102);
    assert_eq!(within("a response", first.read_head()).await.unwrap().0, 200);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http10_has_none_of_them() {
    let (origin, go_on) = early().await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let mut stream = TcpStream::connect(edge.http).await.unwrap();
    stream.write_all(b"GET /old HTTP/1.0\r\nHost: a.example\r\n\r\n").await.unwrap();
    go_on.notify_one();
    let mut all = String::new();
    within("the end", stream.read_to_string(&mut all)).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200 ") && all.ends_with("done"), "{all}");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_has_them_too() {
    let (origin, go_on) = early().await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let stream = TcpStream::connect(edge.http).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a.example/two").body(()).unwrap();
    let (mut response, _) = sender.send_request(request, true).unwrap();
    for (status, link) in [(103, true), (102, false)] {
        let early = within("an interim response", poll_fn(|cx| response.poll_informational(cx)));
        let early = early.await.unwrap().unwrap();
        assert_eq!((early.status().as_u16(), early.headers().contains_key("link")), (status, link));
        assert!(!early.headers().contains_key("x-hop"), "{early:?}");
    }
    go_on.notify_one();
    let response = within("the response", Pin::new(&mut response)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("link"));
    let data: Bytes = response.into_body().data().await.unwrap().unwrap();
    assert_eq!(&data[..], b"done");
}
