//! HTTP/1.1 and HTTP/1.0 to visitors: one request after another on a connection. Fresh hits are written
//! straight from the store; everything else goes through [`crate::serve`].

pub mod content;
pub mod head;
mod pump;
mod reply;
mod sendfile;
#[cfg(test)]
mod tests;
mod upgrade;
pub mod upload;
mod wire;
mod write;

use crate::body;
use crate::front::Context;
use crate::front::deadline::Deadline;
use crate::listen::Io;
use crate::origin::Interim;
use crate::serve::{Exchange, Passage, Reply};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use head::{Framing, Head, HeadError, Scan};
use http::{Method, Version};
use pump::Pump;
use reply::Sent;
use std::future::{Future, poll_fn};
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio_util::sync::WaitForCancellationFutureOwned;
use write::Asked;

/// The longest request target.
const MAX_TARGET: usize = 16 * 1024;

struct Http1 {
    io: Io,
    buffer: BytesMut,
    clock: Deadline,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    context: Context,
}

enum Turn {
    Again,
    Close,
    Abort,
    Upgrade(Box<Passage>),
}

enum Fill {
    Read,
    End,
    Draining,
    Late,
}

enum Incoming {
    Head(Bytes),
    Refused(HeadError),
    Late,
    Gone,
}

/// Serves a connection, `start` being what was read of it already.
pub async fn serve(io: Io, start: BytesMut, context: Context) {
    let mut connection = Http1 {
        io,
        buffer: start,
        clock: Deadline::new(context.limits.idle),
        draining: Box::pin(context.shutdown.clone().cancelled_owned()),
        context,
    };
    loop {
        match connection.turn().await {
            Ok(Turn::Again) => {}
            Ok(Turn::Close) => return connection.close().await,
            Ok(Turn::Abort) => return,
            Ok(Turn::Upgrade(passage)) => {
                let peer = connection.context.connection.peer;
                if let Err(error) = Box::pin(connection.upgrade(*passage)).await {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            Err(error) => {
                let peer = connection.context.connection.peer;
                tracing::debug!(%peer, %error, "connection ended");
                return;
            }
        }
    }
}

impl Http1 {
    async fn turn(&mut self) -> Result<Turn> {
        let raw = match self.read_head().await? {
            Incoming::Head(raw) => raw,
            Incoming::Refused(error) => return self.refuse(error).await,
            Incoming::Late => return self.refuse_late().await,
            Incoming::Gone => return Ok(Turn::Close),
        };
        let fields = self.context.limits.header_fields;
        let head = match head::parse(&raw, fields, MAX_TARGET) {
            Ok(head) => head,
            Err(error) => return self.refuse(error).await,
        };
        let asked = Asked {
            head: head.method == Method::HEAD,
            http11: head.http11,
            keep_alive: head.keep_alive && !self.context.shutdown.is_cancelled(),
        };
        let readable = head.method == Method::GET || asked.head;
        if readable && head.framing == Framing::None && !head.upgrade {
            let version = if head.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
            let hit = self.context.edge.fast(
                &self.context.connection,
                &head.method,
                &head.authority,
                &head.target,
                &head.headers,
                version,
            );
            if let Some(hit) = hit {
                return self.write_hit(hit, asked).await;
            }
        }
        if head.upgrade {
            let Context { edge, connection, .. } = &self.context;
            let Head { method, authority, target, headers, .. } = &head;
            if let Some(passage) = edge.upgrade_to(connection, method, authority, target, headers) {
                return Ok(Turn::Upgrade(Box::new(passage)));
            }
        }
        self.exchange(head, asked).await
    }

    /// Waits for a whole header section: `idle` for its first byte, `header` from there on.
    async fn read_head(&mut self) -> Result<Incoming> {
        let mut resume = 0;
        let mut started = false;
        loop {
            if resume == 0 {
                // An empty line before a request is ignored (RFC 9112 section 2.2).
                while self.buffer.starts_with(b"\r\n") {
                    let _ = self.buffer.split_to(2);
                }
            }
            match head::scan(&self.buffer, resume) {
                Ok(Scan::End(end)) if end > self.context.limits.header_bytes => {
                    return Ok(Incoming::Refused(HeadError::TooLarge));
                }
                Ok(Scan::End(end)) => {
                    return Ok(Incoming::Head(self.buffer.split_to(end).freeze()));
                }
                Ok(Scan::Partial { resume: next }) => resume = next,
                Err(error) => return Ok(Incoming::Refused(error)),
            }
            if self.buffer.len() > self.context.limits.header_bytes {
                return Ok(Incoming::Refused(HeadError::TooLarge));
            }
            if !started {
                started = !self.buffer.is_empty();
                let limits = &self.context.limits;
                self.clock.set(if started { limits.header } else { limits.idle });
            }
            match self.fill(started).await? {
                Fill::Read => {}
                Fill::End | Fill::Draining => return Ok(Incoming::Gone),
                Fill::Late if started => return Ok(Incoming::Late),
                Fill::Late => return Ok(Incoming::Gone),
            }
        }
    }

    async fn fill(&mut self, started: bool) -> Result<Fill> {
        poll_fn(|cx| {
            match wire::poll_fill(&mut self.io, &mut self.buffer, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Fill::End)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Fill::Read)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            if !started && self.draining.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Fill::Draining));
            }
            self.clock.poll(cx).map(|()| Ok(Fill::Late))
        })
        .await
    }

    async fn exchange(&mut self, head: Head, asked: Asked) -> Result<Turn> {
        let (mut pump, content) = match head.framing {
            Framing::None => (None, body::empty()),
            framing => {
                let (upload, content) = upload::pair();
                let stall = self.context.limits.stall;
                (Some(Pump::new(framing, upload, head.expects_continue, stall)), content)
            }
        };
        let wants_trailers = pump::wants_trailers(&head.headers);
        // HTTP/1.0 has none (RFC 9110 section 15.2).
        let interim = head.http11.then(Interim::default);
        let exchange = Exchange {
            connection: Arc::clone(&self.context.connection),
            method: head.method,
            target: head.target,
            authority: head.authority,
            headers: head.headers,
            version: if head.http11 { Version::HTTP_11 } else { Version::HTTP_10 },
            has_content: pump.is_some(),
            content,
            interim: interim.clone(),
        };
        let edge = Arc::clone(&self.context.edge);
        let serving = Box::pin(edge.serve(exchange));
        let reply = self.served(serving, interim, &mut pump).await?;
        let sent = self.write_reply(reply, asked, &mut pump, wants_trailers).await?;
        match sent {
            Sent::Whole if asked.keep_alive && self.settle(pump.as_mut()).await => Ok(Turn::Again),
            Sent::Whole | Sent::Last => Ok(Turn::Close),
            Sent::Cut => Ok(Turn::Abort),
            Sent::Reset => {
                reply::reset_on_close(&self.io);
                Ok(Turn::Abort)
            }
        }
    }

    /// Waits for the response; what comes of interim responses until then is written at once.
    async fn served(
        &mut self,
        mut serving: BoxFuture<'static, Reply>,
        interim: Option<Interim>,
        pump: &mut Option<Pump>,
    ) -> Result<Reply> {
        let mut reply = None;
        loop {
            let early = poll_fn(|cx| {
                if reply.is_none() {
                    self.poll_pump(pump, cx);
                    if let Poll::Ready(served) = serving.as_mut().poll(cx) {
                        reply = Some(served);
                    }
                }
                let writing = pump.as_ref().is_some_and(Pump::is_writing);
                match interim.as_ref().filter(|_| !writing).map(|interim| interim.poll_next(cx)) {
                    Some(Poll::Ready(early)) => Poll::Ready(Some(early)),
                    _ if reply.is_some() => Poll::Ready(None),
                    _ => Poll::Pending,
                }
            })
            .await;
            if let Some((status, headers)) = early {
                // Without the pump, which may have a `100 Continue` to write.
                self.write_parts([write::interim(status, &headers)], &mut None).await?;
            } else if let Some(reply) = reply {
                return Ok(reply);
            }
        }
    }

    fn poll_pump(&mut self, pump: &mut Option<Pump>, cx: &mut std::task::Context<'_>) {
        if let Some(pump) = pump {
            pump.poll(&mut self.io, &mut self.buffer, cx);
        }
    }
}
