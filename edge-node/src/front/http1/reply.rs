//! Writing responses to an HTTP/1 visitor, while the rest of its request may still be coming in.

use super::content::ContentError;
use super::head::HeadError;
use super::pump::Pump;
use super::sendfile::{FileEnd, FileWrite};
use super::write::{self, Asked, Delimited};
use super::{Http1, Turn, wire};
use crate::body::Body;
use crate::body::file::{FilePart, PIECE, Pieces};
use crate::front::short_file;
use crate::listen::Io;
use crate::respond;
use crate::serve::{Content, FastHit, Reply};
use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use std::cell::Cell;
use std::future::poll_fn;
use std::io::Result;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verge_cache::HitContent;

/// What is read and thrown away of a request's content that nobody wanted, to keep the connection.
const MAX_DRAIN: usize = 256 * 1024;
/// Up to here, in bytes, a file is read and written with its header section in one call.
pub(super) const SMALL_FILE: u64 = 16 * 1024;
/// Up to here, in bytes, a hit's content is copied behind its header section: one short piece costs the
/// kernel less than several.
const SHORT: usize = 4 * 1024;
/// The most bytes of room that a thread keeps.
const MOST_ROOM: usize = 64 * 1024;
/// How long draining and closing may take.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    /// Room for a hit's header section and short content, used again and again: every connection of a
    /// thread writes through the same few lines of the processor's cache.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How far a response got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it.
    Whole,
    /// All of it, and the end of the connection is its end.
    Last,
    /// Not all of it, and the visitor can tell by the framing.
    Cut,
    /// Not all of it, and only a reset can tell the visitor.
    Reset,
}

impl Http1 {
    pub(super) async fn write_hit(&mut self, hit: FastHit, asked: Asked) -> Result<Turn> {
        let mut room = ROOM.take();
        room.clear();
        room.extend_from_slice(hit.head());
        hit.write_fields(&mut room);
        room.extend_from_slice(write::connection(asked));
        room.extend_from_slice(b"\r\n");
        let content = if asked.head { &[] } else { hit.hit().in_memory() };
        let (count, sent) = match &hit.hit().content {
            HitContent::File(part) if !asked.head => {
                let head = Bytes::copy_from_slice(&room);
                self.write_file(head, part.clone(), &mut None).await?
            }
            _ if content.len() <= SHORT => {
                room.extend_from_slice(content);
                self.write_parts([&*room], &mut None).await?;
                (content.len() as u64, Sent::Whole)
            }
            // What is longer is written from where it lies.
            _ => {
                self.write_parts([&*room, content], &mut None).await?;
                (content.len() as u64, Sent::Whole)
            }
        };
        if room.capacity() <= MOST_ROOM {
            ROOM.set(room);
        }
        let whole = sent == Sent::Whole;
        hit.done(count, whole);
        Ok(match whole {
            true if asked.keep_alive => Turn::Again,
            true => Turn::Close,
            false => Turn::Abort,
        })
    }

    pub(super) async fn write_reply(
        &mut self,
        reply: Reply,
        asked: Asked,
        pump: &mut Option<Pump>,
        wants_trailers: bool,
    ) -> Result<Sent> {
        let delimited = write::delimit(&reply, asked);
        let head = write::head(&reply, asked, delimited);
        let Reply { content, record, .. } = reply;
        let (count, sent) = match (content, delimited) {
            (Content::Whole(bytes), Delimited::Length(length)) => {
                self.write_parts([head, bytes], pump).await?;
                (length, Sent::Whole)
            }
            (Content::File(part), Delimited::Length(_)) => {
                self.write_file(head, part, pump).await?
            }
            (Content::Stream(_), Delimited::Nothing)
            | (Content::Empty | Content::Whole(_) | Content::File(_), _) => {
                self.write_parts([head], pump).await?;
                (0, Sent::Whole)
            }
            (Content::Stream(stream), _) => {
                self.write_stream(head, stream, delimited, pump, wants_trailers).await?
            }
        };
        record.done(count, matches!(sent, Sent::Whole | Sent::Last));
        Ok(sent)
    }

    /// Writes a header section and a file's content behind it. A file that gives less than it should
    /// is a response that breaks off.
    async fn write_file(
        &mut self,
        head: Bytes,
        part: FilePart,
        pump: &mut Option<Pump>,
    ) -> Result<(u64, Sent)> {
        if part.len <= SMALL_FILE || matches!(self.io, Io::Tls(_)) {
            return self.write_pieces(head, Pieces::new(part), pump).await;
        }
        let stall = self.context.limits.stall;
        let mut file = FileWrite::new(head, part);
        self.clock.set(stall);
        let end = poll_fn(|cx| {
            let Io::Plain(stream) = &self.io else {
                return Poll::Ready(Err(std::io::ErrorKind::Unsupported.into()));
            };
            let sending = file.poll(stream, &mut self.clock, stall, cx);
            if sending.is_pending() {
                self.poll_pump(pump, cx);
            }
            sending
        })
        .await?;
        Ok(match end {
            FileEnd::Whole => (file.sent(), Sent::Whole),
            FileEnd::Short(error) => {
                short_file::warn(&error);
                (file.sent(), Sent::Cut)
            }
        })
    }

    async fn write_pieces(
        &mut self,
        mut head: Bytes,
        mut pieces: Pieces,
        pump: &mut Option<Pump>,
    ) -> Result<(u64, Sent)> {
        let mut count = 0;
        loop {
            let read = poll_fn(|cx| {
                self.poll_pump(pump, cx);
                pieces.poll_piece(PIECE, cx)
            })
            .await;
            let (piece, sent) = match read {
                Ok(Some(piece)) => (piece, None),
                Ok(None) => (Bytes::new(), Some(Sent::Whole)),
                Err(error) => {
                    short_file::warn(&error);
                    (Bytes::new(), Some(Sent::Cut))
                }
            };
            count += piece.len() as u64;
            self.write_parts([std::mem::take(&mut head), piece], pump).await?;
            if let Some(sent) = sent {
                return Ok((count, sent));
            }
        }
    }

    async fn write_stream(
        &mut self,
        head: Bytes,
        mut stream: Body,
        delimited: Delimited,
        pump: &mut Option<Pump>,
        wants_trailers: bool,
    ) -> Result<(u64, Sent)> {
        let mut head = Some(head);
        let mut count = 0u64;
        let mut trailers: Option<HeaderMap> = None;
        let failed = if delimited == Delimited::Close { Sent::Reset } else { Sent::Cut };
        loop {
            let frame = self.next_frame(&mut stream, head.is_some(), pump).await;
            let data = match frame {
                Next::NotYet => Bytes::new(),
                Next::End => break,
                Next::Failed => {
                    // What was promised must be seen to break off, so the header section goes out.
                    self.write_parts([head.take().unwrap_or_default()], pump).await?;
                    return Ok((count, failed));
                }
                Next::Trailers(fields) => {
                    trailers = Some(fields);
                    continue;
                }
                Next::Data(data) => data,
            };
            count += data.len() as u64;
            if matches!(delimited, Delimited::Length(length) if count > length) {
                return Ok((count, failed));
            }
            let head = head.take().unwrap_or_default();
            if delimited == Delimited::Chunked && !data.is_empty() {
                let size = write::chunk_size(data.len());
                let end = Bytes::from_static(b"\r\n");
                self.write_parts([head, size, data, end], pump).await?;
            } else {
                self.write_parts([head, data], pump).await?;
            }
        }
        let end = match delimited {
            Delimited::Chunked => write::last_chunk(trailers.as_ref().filter(|_| wants_trailers)),
            Delimited::Length(length) if count < length => return Ok((count, failed)),
            _ => Bytes::new(),
        };
        self.write_parts([head.take().unwrap_or_default(), end], pump).await?;
        Ok((count, if delimited == Delimited::Close { Sent::Last } else { Sent::Whole }))
    }

    /// The next frame of a response's content. With `eager`, an answer at once: the header section
    /// must not wait for content.
    async fn next_frame(
        &mut self,
        stream: &mut Body,
        eager: bool,
        pump: &mut Option<Pump>,
    ) -> Next {
        poll_fn(|cx| {
            self.poll_pump(pump, cx);
            match Pin::new(&mut *stream).poll_frame(cx) {
                Poll::Pending if eager => Poll::Ready(Next::NotYet),
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(Next::End),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "content ended early");
                    Poll::Ready(Next::Failed)
                }
                Poll::Ready(Some(Ok(frame))) => Poll::Ready(match frame.into_data() {
                    Ok(data) => Next::Data(data),
                    Err(frame) => Next::Trailers(frame.into_trailers().unwrap_or_default()),
                }),
            }
        })
        .await
    }

    pub(super) async fn write_parts<const N: usize, B: Buf>(
        &mut self,
        mut parts: [B; N],
        pump: &mut Option<Pump>,
    ) -> Result<()> {
        let stall = self.context.limits.stall;
        self.clock.set(stall);
        poll_fn(|cx| {
            match wire::poll_write_parts(&mut self.io, &mut parts, &mut self.clock, stall, cx) {
                Poll::Ready(Ok(())) => wire::poll_flush(&mut self.io, cx),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.poll_pump(pump, cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Whether the connection is at the start of the next request: what is left of this one's content
    /// is read and thrown away, if it is little and comes soon.
    pub(super) async fn settle(&mut self, pump: Option<&mut Pump>) -> bool {
        let Some(pump) = pump else { return true };
        let draining = poll_fn(|cx| pump.poll_drain(&mut self.io, &mut self.buffer, MAX_DRAIN, cx));
        tokio::time::timeout(LINGER, draining).await.unwrap_or(false)
    }

    pub(super) async fn refuse(&mut self, error: HeadError) -> Result<Turn> {
        let status = match error {
            HeadError::Bad(_) => StatusCode::BAD_REQUEST,
            HeadError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadError::TargetTooLong => StatusCode::URI_TOO_LONG,
            HeadError::Expectation => StatusCode::EXPECTATION_FAILED,
            HeadError::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        };
        self.refuse_with(status, &error.to_string()).await
    }

    pub(super) async fn refuse_late(&mut self) -> Result<Turn> {
        let text = "the header section did not arrive in time";
        self.refuse_with(StatusCode::REQUEST_TIMEOUT, text).await
    }

    async fn refuse_with(&mut self, status: StatusCode, text: &str) -> Result<Turn> {
        let reply = respond::refused(status, text);
        let asked = Asked { head: false, http11: true, keep_alive: false };
        self.write_reply(reply, asked, &mut None, false).await?;
        Ok(Turn::Close)
    }

    /// Ends the connection so that the visitor can still read what was sent: a socket closed with
    /// unread input is reset, and the reset may overtake the response (RFC 9112 section 9.6).
    pub(super) async fn close(mut self) {
        let _ = self.io.shutdown().await;
        let discard = async {
            let mut sink = [0u8; 4096];
            let mut left = MAX_DRAIN;
            while let Ok(read) = self.io.read(&mut sink).await {
                left = left.saturating_sub(read);
                if read == 0 || left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, discard).await;
    }
}

enum Next {
    NotYet,
    End,
    Failed,
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Makes the end of the connection a reset.
pub(super) fn reset_on_close(io: &Io) {
    if let Err(error) = io.socket().set_zero_linger() {
        tracing::debug!(%error, "cannot reset on close");
    }
}

impl From<ContentError> for std::io::Error {
    fn from(error: ContentError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}
