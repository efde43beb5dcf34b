//! HTTP/2 to visitors (RFC 9113), on the h2 crate: each stream is an exchange of its own. Not on
//! pingora's session, which rewrites the `Date` of stored responses and has no trailers.

mod gather;
mod head;
mod incoming;
mod send;
#[cfg(test)]
mod tests;

use crate::front::Context;
use crate::front::deadline::Deadline;
use crate::listen::Rewind;
use crate::origin::Interim;
use crate::serve::{Content, Exchange, FastHit, Reply};
use bytes::Bytes;
use futures::future::BoxFuture;
use gather::{Gathered, Gatherer};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use head::Head;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;
use verge_cache::HitContent;

/// What a visitor may send ahead on one stream, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// What a visitor may send ahead on all streams of a connection, in bytes.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What the edge buffers for one stream that the visitor does not take, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that a visitor may have reset while their responses are under way: the guard against rapid
/// resets (CVE-2023-44487).
const MAX_RESETS: usize = 64;

/// How many streams a visitor may reset before their responses were whole, unless it takes as many.
const MAX_EARLY_RESETS: u32 = 200;
/// How long the end of a connection may take to write.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    let (gathered, gatherer) = gather::pair(io);
    let handshake = builder.handshake::<_, Bytes>(gathered);
    let connection = match tokio::time::timeout(context.limits.header, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/2 handshake failed"),
        Err(_) => return,
    };
    gatherer.defer();
    accept(connection, &gatherer, Shared::new(context)).await;
    // What the connection's end had to say: GOAWAY and its reason.
    let last = poll_fn(|cx| gatherer.poll_flush(cx));
    let _ = tokio::time::timeout(LAST_WORDS, last).await;
}

type H2 = h2::server::Connection<Gathered, Bytes>;
type Accepted = Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

/// What happens next on a connection.
#[expect(clippy::large_enum_variant, reason = "made and taken apart at once, never kept")]
enum Event {
    Accepted(Accepted),
    Drain,
    Idle,
    Broken(std::io::Error),
}

/// What the streams of a connection share.
struct Shared {
    context: Context,
    /// Streams that ended before their response was whole, nearly all reset by the visitor.
    resets: AtomicU32,
}

impl Shared {
    fn new(context: Context) -> Arc<Shared> {
        Arc::new(Shared { context, resets: AtomicU32::new(0) })
    }

    fn ended_early(&self, error: &h2::Error) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "HTTP/2 stream ended");
    }

    /// Whether a visitor asks in order to reset: most of what it asked for, and more often than one that
    /// leaves a page does. The requests behind the resets cost an origin what they cost (CVE-2023-44487).
    fn is_abused(&self, accepted: u32) -> bool {
        let resets = self.resets.load(Ordering::Relaxed);
        resets >= MAX_EARLY_RESETS && resets > accepted / 2
    }
}

async fn accept(mut connection: H2, gatherer: &Gatherer, shared: Arc<Shared>) {
    let context = &shared.context;
    let mut accepted = 0u32;
    let (mut draining, mut ending) = (false, false);
    let mut shutdown = Box::pin(context.shutdown.clone().cancelled_owned());
    let mut clock = Deadline::new(context.limits.idle);
    let peer = context.connection.peer;
    loop {
        let event = poll_fn(|cx| {
            if !draining && shutdown.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Drain);
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Event::Accepted(accepted));
            }
            match gatherer.poll_flush(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Event::Broken(error)),
                // A visitor that takes a response slowly is not idle.
                Poll::Pending if !ending && gatherer.has_moved() => clock.set(context.limits.idle),
                _ => {}
            }
            // Each stream that is a task of its own holds the context.
            if !ending && Arc::strong_count(&shared) > 1 {
                clock.set(context.limits.idle);
            }
            clock.poll(cx).map(|()| Event::Idle)
        })
        .await;
        match event {
            Event::Accepted(Some(Ok(_))) if ending => {}
            Event::Accepted(Some(Ok((request, respond)))) => {
                clock.set(context.limits.idle);
                accepted = accepted.saturating_add(1);
                if shared.is_abused(accepted) {
                    tracing::debug!(%peer, accepted, "HTTP/2 streams are reset too often");
                    ending = true;
                    clock.set(LAST_WORDS);
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                } else {
                    Stream { shared: Arc::clone(&shared), respond }.start(request);
                }
            }
            Event::Accepted(Some(Err(error))) => {
                return tracing::debug!(%peer, %error, "HTTP/2 connection ended");
            }
            Event::Broken(error) => {
                return tracing::debug!(%peer, %error, "HTTP/2 connection ended");
            }
            Event::Accepted(None) => return,
            Event::Drain => {
                draining = true;
                connection.graceful_shutdown();
            }
            // The visitor takes not even the connection's end.
            Event::Idle if ending => return,
            Event::Idle if Arc::strong_count(&shared) > 1 => clock.set(context.limits.idle),
            Event::Idle => {
                ending = true;
                clock.set(LAST_WORDS);
                connection.abrupt_shutdown(Reason::NO_ERROR);
            }
        }
    }
}

struct Stream {
    shared: Arc<Shared>,
    respond: SendResponse<Bytes>,
}

/// What is left to do for a request after what can be done at once.
enum Rest {
    Nothing,
    Refusal(StatusCode),
    Content(SendStream<Bytes>, FastHit),
    Exchange(Head, RecvStream),
}

impl Stream {
    /// Answers a hit at once; all else is a task of its own.
    fn start(mut self, request: Request<RecvStream>) {
        let (parts, content) = request.into_parts();
        let rest = match head::head(parts, self.shared.context.limits.header_fields) {
            Ok(head) => self.try_hit(head, content),
            Err(status) => Ok(Rest::Refusal(status)),
        };
        match rest {
            Ok(Rest::Nothing) => {}
            Ok(rest) => {
                tokio::spawn(self.run(rest));
            }
            Err(error) => self.shared.ended_early(&error),
        }
    }

    fn try_hit(&mut self, head: Head, content: RecvStream) -> Result<Rest, h2::Error> {
        let is_head = head.method == Method::HEAD;
        if !(is_head || head.method == Method::GET) || !content.is_end_stream() {
            return Ok(Rest::Exchange(head, content));
        }
        let Context { edge, connection, .. } = &self.shared.context;
        let Head { method, target, authority, headers } = &head;
        match edge.fast(connection, method, authority, target, headers, Version::HTTP_2) {
            Some(hit) => self.send_hit(hit, is_head),
            None => Ok(Rest::Exchange(head, content)),
        }
    }

    /// Sends a hit as far as the visitor's window allows at once.
    fn send_hit(&mut self, hit: FastHit, is_head: bool) -> Result<Rest, h2::Error> {
        let stored = hit.hit();
        let mut headers = stored.object.headers();
        headers.insert(http::header::AGE, HeaderValue::from(stored.age));
        if let Ok(value) = HeaderValue::from_bytes(&hit.cache_status()) {
            headers.append("cache-status", value);
        }
        let length = if is_head { 0 } else { stored.len() };
        let response = send::response(stored.object.status(), headers);
        let mut sender = self.respond.send_response(response, length == 0)?;
        if length == 0 {
            hit.done(0, true);
            return Ok(Rest::Nothing);
        }
        if let Some(bytes) = hit.hit().bytes() {
            sender.reserve_capacity(bytes.len());
            if sender.capacity() >= bytes.len() {
                sender.send_data(bytes, true)?;
                hit.done(length, true);
                return Ok(Rest::Nothing);
            }
        }
        Ok(Rest::Content(sender, hit))
    }

    async fn run(mut self, rest: Rest) {
        if let Err(error) = self.finish(rest).await {
            self.shared.ended_early(&error);
        }
    }

    async fn finish(&mut self, rest: Rest) -> Result<(), h2::Error> {
        match rest {
            Rest::Nothing => Ok(()),
            Rest::Refusal(status) => {
                let text = "the request's fields are not valid";
                self.send(crate::respond::refused(status, text), false).await
            }
            Rest::Content(mut sender, hit) => {
                let stall = self.shared.context.limits.stall;
                let (count, whole) = if let HitContent::File(part) = &hit.hit().content {
                    send::send_file(&mut sender, part.clone(), stall).await?
                } else {
                    let bytes = hit.hit().bytes().unwrap_or_default();
                    let count = bytes.len() as u64;
                    send::send_data(&mut sender, bytes, true, stall).await?;
                    (count, true)
                };
                hit.done(count, whole);
                Ok(())
            }
            Rest::Exchange(head, content) => self.exchange(head, content).await,
        }
    }

    async fn exchange(&mut self, head: Head, content: RecvStream) -> Result<(), h2::Error> {
        let Head { method, target, authority, headers } = head;
        let is_head = method == Method::HEAD;
        let has_content = !content.is_end_stream();
        let interim = Interim::default();
        let exchange = Exchange {
            connection: Arc::clone(&self.shared.context.connection),
            method,
            target,
            authority,
            headers,
            version: Version::HTTP_2,
            has_content,
            content: incoming::incoming(content, has_content, self.shared.context.limits.stall),
            interim: Some(interim.clone()),
        };
        let serving: BoxFuture<'_, Reply> =
            Box::pin(Arc::clone(&self.shared.context.edge).serve(exchange));
        let reply = self.until_reset(serving, &interim).await?;
        self.send(reply, is_head).await
    }

    /// Waits for `work`, unless the visitor resets the stream first; interim responses that come until
    /// then are sent at once.
    async fn until_reset<T>(
        &mut self,
        mut work: BoxFuture<'_, T>,
        interim: &Interim,
    ) -> Result<T, h2::Error> {
        let respond = &mut self.respond;
        poll_fn(|cx| {
            // Before the work begins, too: a stream that is reset already costs an origin nothing.
            match respond.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => return Poll::Ready(Err(reason.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            let done = work.as_mut().poll(cx);
            while let Poll::Ready((status, headers)) = interim.poll_next(cx) {
                let mut response = http::Response::new(());
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                respond.send_informational(response)?;
            }
            done.map(Ok)
        })
        .await
    }

    async fn send(&mut self, reply: Reply, is_head: bool) -> Result<(), h2::Error> {
        let Reply { status, mut headers, content, record } = reply;
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        // HEAD says the length that GET would have (RFC 9110 section 9.3.2).
        if let (Some(length), false) = (content.length(), bodiless) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let none = is_head || bodiless;
        let stall = self.shared.context.limits.stall;
        let ends = none || matches!(&content, Content::Empty) || content.length() == Some(0);
        let mut sender = self.respond.send_response(send::response(status, headers), ends)?;
        let (count, whole) = match content {
            Content::Whole(bytes) if !ends => {
                let count = bytes.len() as u64;
                send::send_data(&mut sender, bytes, true, stall).await?;
                (count, true)
            }
            Content::File(part) if !ends => send::send_file(&mut sender, part, stall).await?,
            Content::Stream(stream) if !ends => {
                send::send_stream(&mut sender, stream, stall).await?
            }
            _ => (0, true),
        };
        record.done(count, whole);
        Ok(())
    }
}
