//! HTTP/2 to visitors (RFC 9113), on the h2 crate: each stream is an exchange of its own. Not on
//! pingora's session, which rewrites the `Date` of stored responses and has no trailers.

use crate::body::{self, Body, BoxError};
use crate::front::Context;
use crate::listen::Rewind;
use crate::serve::{Content, Exchange, FastHit, Reply};
use bytes::Bytes;
use futures::future::BoxFuture;
use h2::server::SendResponse;
use h2::{FlowControl, Reason, RecvStream, SendStream};
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

/// What a visitor may send ahead on one stream, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// What a visitor may send ahead on all streams of a connection, in bytes.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What the edge buffers for one stream that the visitor does not take, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that a visitor may have reset while their responses are under way: the guard against rapid
/// resets (CVE-2023-44487).
const MAX_RESETS: usize = 64;

/// Serves a connection to its end.
pub(super) async fn serve(io: Rewind, context: Context) {
    let mut builder = h2::server::Builder::new();
    let header_bytes = u32::try_from(context.limits.header_bytes).unwrap_or(u32::MAX);
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(context.limits.streams)
        .max_header_list_size(header_bytes)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(Some(MAX_RESETS));
    let handshake = builder.handshake::<_, Bytes>(io);
    let connection = match tokio::time::timeout(context.limits.header, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/2 handshake failed"),
        Err(_) => return,
    };
    accept(connection, context).await;
}

async fn accept(mut connection: h2::server::Connection<Rewind, Bytes>, context: Context) {
    let mut draining = false;
    let streams = tokio_util::task::TaskTracker::new();
    streams.close();
    loop {
        let idle = async {
            streams.wait().await;
            tokio::time::sleep(context.limits.idle).await;
        };
        let accepted = tokio::select! {
            biased;
            () = context.shutdown.cancelled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
            accepted = connection.accept() => accepted,
            () = idle => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                let stream = Stream { context: context.clone(), respond };
                streams.reopen();
                streams.spawn(stream.run(request));
                streams.close();
            }
            Some(Err(error)) => {
                tracing::debug!(peer = %context.connection.peer, %error, "HTTP/2 connection ended");
                return;
            }
            None => return,
        }
    }
}

struct Stream {
    context: Context,
    respond: SendResponse<Bytes>,
}

impl Stream {
    async fn run(mut self, request: Request<RecvStream>) {
        if let Err(error) = self.exchange(request).await {
            tracing::debug!(%error, "HTTP/2 stream ended");
        }
    }

    async fn exchange(&mut self, request: Request<RecvStream>) -> Result<(), h2::Error> {
        let (parts, content) = request.into_parts();
        let head = match head(parts, self.context.limits.header_fields) {
            Ok(head) => head,
            Err(status) => {
                let text = "the request's fields are not valid";
                let reply = crate::respond::refused(status, text);
                return self.send(reply, false).await;
            }
        };
        let Head { method, target, authority, headers } = head;
        let is_head = method == Method::HEAD;
        let has_content = !content.is_end_stream();
        if (is_head || method == Method::GET) && !has_content {
            let Context { edge, connection, .. } = &self.context;
            let version = Version::HTTP_2;
            let hit = edge.fast(connection, &method, &authority, &target, &headers, version);
            if let Some(hit) = hit {
                return self.send_hit(hit, is_head).await;
            }
        }
        let exchange = Exchange {
            connection: Arc::clone(&self.context.connection),
            method,
            target,
            authority,
            headers,
            version: Version::HTTP_2,
            has_content,
            content: incoming(content, has_content, self.context.limits.stall),
        };
        let serving: BoxFuture<'_, Reply> =
            Box::pin(Arc::clone(&self.context.edge).serve(exchange));
        let reply = self.until_reset(serving).await?;
        self.send(reply, is_head).await
    }

    /// Waits for `work`, unless the visitor resets the stream first.
    async fn until_reset<T>(&mut self, mut work: BoxFuture<'_, T>) -> Result<T, h2::Error> {
        let respond = &mut self.respond;
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            match respond.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => Poll::Ready(Err(reason.into())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    async fn send_hit(&mut self, hit: FastHit, is_head: bool) -> Result<(), h2::Error> {
        let stored = hit.hit();
        let mut headers = stored.object.headers().clone();
        headers.insert(http::header::AGE, HeaderValue::from(stored.age));
        let status = format!("Verge; hit; ttl={}", stored.ttl);
        if let Ok(value) = HeaderValue::from_str(&status) {
            headers.append("cache-status", value);
        }
        let content = if is_head { Bytes::new() } else { hit.content() };
        let length = content.len() as u64;
        let response = response(stored.object.status(), headers);
        let mut sender = self.respond.send_response(response, content.is_empty())?;
        if !content.is_empty() {
            send_data(&mut sender, content, true, self.context.limits.stall).await?;
        }
        hit.done(length);
        Ok(())
    }

    async fn send(&mut self, reply: Reply, is_head: bool) -> Result<(), h2::Error> {
        let Reply { status, mut headers, content, record } = reply;
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        // HEAD says the length that GET would have (RFC 9110 section 9.3.2).
        if let (Content::Whole(bytes), false) = (&content, bodiless) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        let none = is_head || bodiless;
        let stall = self.context.limits.stall;
        let ends = none || matches!(&content, Content::Empty);
        let mut sender = self.respond.send_response(response(status, headers), ends)?;
        let (count, whole) = match content {
            Content::Whole(bytes) if !ends => {
                let count = bytes.len() as u64;
                send_data(&mut sender, bytes, true, stall).await?;
                (count, true)
            }
            Content::Stream(stream) if !ends => send_stream(&mut sender, stream, stall).await?,
            _ => (0, true),
        };
        record.done(count, whole);
        Ok(())
    }
}

struct Head {
    method: Method,
    target: PathAndQuery,
    authority: HeaderValue,
    headers: HeaderMap,
}

/// A request's header section as the rooms behind want it: `Host` from `:authority`, one `Cookie`
/// (RFC 9113 sections 8.2.3 and 8.3.1), nothing of another protocol's framing.
fn head(parts: http::request::Parts, max_fields: usize) -> Result<Head, StatusCode> {
    let bad = StatusCode::BAD_REQUEST;
    let mut headers = parts.headers;
    if headers.len() > max_fields {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let forbidden = [CONNECTION, TRANSFER_ENCODING, UPGRADE];
    if forbidden.iter().any(|name| headers.contains_key(name)) {
        return Err(bad);
    }
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(bad);
    }
    let named = parts.uri.authority().map(|a| HeaderValue::from_str(a.as_str())).transpose();
    let authority = match (named.map_err(|_| bad)?, headers.get(HOST)) {
        (Some(named), Some(host)) if !eq_host(&named, host) => return Err(bad),
        (Some(named), _) => named,
        (None, Some(host)) => host.clone(),
        (None, None) => return Err(bad),
    };
    let plain =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if authority.is_empty() || authority.len() > 300 || !authority.as_bytes().iter().all(plain) {
        return Err(bad);
    }
    headers.insert(HOST, authority.clone());
    let target = parts.uri.path_and_query().cloned().ok_or(bad)?;
    let path = target.as_str();
    let star = path == "*" && parts.method == Method::OPTIONS;
    if !(path.starts_with('/') || star) || !path.bytes().all(|b| matches!(b, 0x21..=0x7e)) {
        return Err(bad);
    }
    join_cookies(&mut headers);
    Ok(Head { method: parts.method, target, authority, headers })
}

fn eq_host(a: &HeaderValue, b: &HeaderValue) -> bool {
    a.as_bytes().eq_ignore_ascii_case(b.as_bytes())
}

fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().count() > 1 {
        let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

fn response(status: StatusCode, mut headers: HeaderMap) -> Response<()> {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive")] {
        headers.remove(name);
    }
    if !headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, now);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

async fn send_stream(
    sender: &mut SendStream<Bytes>,
    mut stream: Body,
    stall: Duration,
) -> Result<(u64, bool), h2::Error> {
    let mut count = 0;
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut stream).poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            match sender.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => Poll::Ready(Err(reason.into())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        match frame {
            None => {
                sender.send_data(Bytes::new(), true)?;
                return Ok((count, true));
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "content ended early");
                sender.send_reset(Reason::INTERNAL_ERROR);
                return Ok((count, false));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    count += data.len() as u64;
                    let ends = stream.is_end_stream();
                    send_data(sender, data, ends, stall).await?;
                    if ends {
                        return Ok((count, true));
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        sender.send_trailers(trailers)?;
                        return Ok((count, true));
                    }
                }
            },
        }
    }
}

/// Sends as the visitor's window allows; late when it stays shut for `stall`.
async fn send_data(
    sender: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
    stall: Duration,
) -> Result<(), h2::Error> {
    if data.is_empty() {
        return if ends { sender.send_data(data, true) } else { Ok(()) };
    }
    while !data.is_empty() {
        sender.reserve_capacity(data.len());
        let capacity = poll_fn(|cx| sender.poll_capacity(cx));
        let room = match tokio::time::timeout(stall, capacity).await {
            Ok(Some(room)) => room?,
            Ok(None) => return Err(Reason::CANCEL.into()),
            Err(_) => {
                sender.send_reset(Reason::CANCEL);
                return Err(Reason::CANCEL.into());
            }
        };
        let piece = data.split_to(room.min(data.len()));
        sender.send_data(piece, ends && data.is_empty())?;
    }
    Ok(())
}

fn incoming(stream: RecvStream, has_content: bool, stall: Duration) -> Body {
    if !has_content {
        return body::empty();
    }
    Incoming { stream, stall, sleep: None, unreleased: 0 }.boxed_unsync()
}

/// A request's content; the visitor's window opens as it is read.
struct Incoming {
    stream: RecvStream,
    stall: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    unreleased: usize,
}

impl Incoming {
    fn release(&mut self) {
        let control: &mut FlowControl = self.stream.flow_control();
        let _ = control.release_capacity(std::mem::take(&mut self.unreleased));
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.release();
        match this.stream.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                this.sleep = None;
                this.unreleased = data.len();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            // Trailers are dropped: a field that frames or routes must not come in by the back door.
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let stall = this.stall;
                let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
                match sleep.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err("the content stalled".into()))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
