//! Responses whose content is in a file, over real HTTP/2 connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::{SEND_BUFFER, Shared, Stream};
use crate::front::testing::{Stored, context, pair, tls_pair};
use crate::listen::Limits;
use bytes::Bytes;
use http::{Method, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Answers each request of a connection with the file.
fn answer(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    stored: &Arc<Stored>,
    limits: Limits,
) {
    let (shared, stored) = (Shared::new(context(limits)), Arc::clone(stored));
    tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.max_send_buffer_size(SEND_BUFFER);
        let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            let mut stream = Stream { shared: Arc::clone(&shared), respond };
            let reply = stored.reply();
            tokio::spawn(async move { stream.send(reply, request.method() == Method::HEAD).await });
        }
    });
}

async fn visitor(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    window: u32,
) -> h2::client::SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window);
    let (send, connection) = builder.handshake::<_, Bytes>(io).await.unwrap();
    tokio::spawn(connection);
    send
}

/// The length that a response declares, and its content.
async fn get(
    send: &h2::client::SendRequest<Bytes>,
    method: Method,
) -> (Option<usize>, Result<Vec<u8>, h2::Error>) {
    let mut send = send.clone().ready().await.unwrap();
    let request = Request::builder().method(method).uri("http://a.example/").body(()).unwrap();
    let response = send.send_request(request, true).unwrap().0.await.unwrap();
    let length = response.headers().get("content-length");
    let length = length.map(|value| value.to_str().unwrap().parse().unwrap());
    let mut body = response.into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                content.extend_from_slice(&data);
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            Err(error) => return (length, Err(error)),
        }
    }
    (length, Ok(content))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sent_whole() {
    for size in [0, 1, 16 * 1024, 100_000, (3 << 20) + 7] {
        let stored = Arc::new(Stored::new(size));
        for encrypted in [false, true] {
            let send = if encrypted {
                let (edge, near) = tls_pair().await;
                answer(edge, &stored, Limits::default());
                visitor(near, 65_535).await
            } else {
                let (edge, near) = pair().await;
                answer(edge, &stored, Limits::default());
                visitor(near, 4 << 20).await
            };
            for (length, content) in [get(&send, Method::GET).await, get(&send, Method::GET).await]
            {
                assert_eq!(length, Some(size));
                assert!(content.unwrap() == stored.bytes, "{size} {encrypted}");
            }
            let (length, content) = get(&send, Method::HEAD).await;
            assert_eq!((length, content.unwrap().len()), (Some(size), 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_short_resets_the_stream_alone() {
    let stored = Arc::new(Stored::new(1 << 20));
    let (edge, near) = pair().await;
    answer(edge, &stored, Limits::default());
    let send = visitor(near, 4 << 20).await;
    assert!(get(&send, Method::GET).await.1.unwrap() == stored.bytes);
    stored.cut(700_000);
    let error = get(&send, Method::GET).await.1.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    // The connection goes on.
    stored.file.as_file().set_len(stored.part.offset + (1 << 20)).unwrap();
    assert_eq!(get(&send, Method::GET).await.1.unwrap().len(), 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_that_opens_no_window_is_late() {
    let stored = Arc::new(Stored::new(1 << 20));
    let limits = Limits { stall: Duration::from_millis(200), ..Limits::default() };
    let (edge, near) = pair().await;
    answer(edge, &stored, limits);
    let mut send = visitor(near, 65_535).await.ready().await.unwrap();
    let request = Request::builder().uri("http://a.example/").body(()).unwrap();
    let mut body = send.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let error = loop {
        match body.data().await.expect("the stream is not whole") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
}
