//! The harness itself, against its own origins and no edge: a client that called a cut response whole,
//! or an origin that forgot a request, would let every other test pass for nothing.

use bytes::Bytes;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verge_tests::http1;
use verge_tests::origin::streamed;
use verge_tests::{Gate, Http1, Origin, answer};

async fn raw(bytes: &'static [u8]) -> Origin {
    Origin::raw(move |mut stream| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(bytes).await;
    })
    .await
}

#[tokio::test]
async fn content_is_whole_only_when_its_frame_is() {
    for (bytes, body, whole) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], "hello", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", "hello", false),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "hello",
            true,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", "hello", false),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "", true),
    ] {
        let origin = raw(bytes).await;
        let reply = http1::get(origin.address, "a", "/").await;
        assert_eq!((reply.text().as_str(), reply.whole), (body, whole), "{reply:?}");
    }
    for garbage in
        [&b""[..], b"HTTP/1.1 200", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"]
    {
        let origin = raw(garbage).await;
        let mut client = Http1::connect(origin.address).await;
        assert!(client.try_request("GET", "a", "/", &[], b"").await.is_err());
    }
}

#[tokio::test]
async fn an_origin_notes_every_request() {
    let origin = Origin::always(200, &[], "here").await;
    let mut client = Http1::connect(origin.address).await;
    for _ in 0..3 {
        client.request("POST", "a", "/a?b", &[("X-Mark", "1")], b"body").await.expect(200);
    }
    assert_eq!((origin.count("/a?b"), origin.count("/a"), origin.connections()), (3, 0, 1));
    let seen = &origin.seen()[0];
    assert_eq!((&seen.body[..], &seen.headers["x-mark"]), (&b"body"[..], &"1".parse().unwrap()));
}

#[tokio::test]
async fn a_gate_holds_until_it_is_opened() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            answer(200, &[], "")
        }
    })
    .await;
    let address = origin.address;
    let mut request = tokio::spawn(async move { http1::get(address, "a", "/").await });
    gate.reached().await;
    let early = tokio::time::timeout(Duration::from_millis(50), &mut request).await;
    assert!(early.is_err(), "it did not hold");
    gate.open();
    assert_eq!(request.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_streamed_answer_breaks_where_the_test_says() {
    let (held, pieces) = streamed(200, &[]);
    let held = Mutex::new(Some(held));
    let origin = Origin::start(move |_| {
        let answer = held.lock().unwrap().take().unwrap();
        async move { answer }
    })
    .await;
    let mut client = Http1::connect(origin.address).await;
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    pieces.send(Ok(Bytes::from_static(b"half"))).unwrap();
    let (_, headers) = client.read_head().await.unwrap();
    pieces.send(Err(std::io::Error::other("as the test says"))).unwrap();
    let (body, whole) = client.read_body(&headers).await;
    assert!(!whole, "{body:?}");
}
