//! Responses onto an HTTP/2 stream, as the visitor's window allows.

use super::SEND_BUFFER;
use crate::body::Body;
use crate::body::file::{FilePart, Pieces};
use crate::front::short_file;
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, DATE, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

/// A response's header section, without the fields of another protocol's framing.
pub(super) fn response(status: StatusCode, mut headers: HeaderMap) -> Response<()> {
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

/// Sends content as it arrives; how much it was, and whether it was whole.
pub(super) async fn send_stream(
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

/// Reads as much of a file as the visitor's window takes, and sends it. A file that gives less than it
/// should is a stream that breaks off.
pub(super) async fn send_file(
    sender: &mut SendStream<Bytes>,
    part: FilePart,
    stall: Duration,
) -> Result<(u64, bool), h2::Error> {
    let mut pieces = Pieces::new(part);
    let mut count = 0;
    loop {
        let wanted = usize::try_from(pieces.remaining()).unwrap_or(SEND_BUFFER).min(SEND_BUFFER);
        let room = capacity(sender, wanted, stall).await?;
        match poll_fn(|cx| pieces.poll_piece(room, cx)).await {
            Ok(Some(piece)) => {
                count += piece.len() as u64;
                let ends = pieces.remaining() == 0;
                sender.send_data(piece, ends)?;
                if ends {
                    return Ok((count, true));
                }
            }
            Ok(None) => return Ok((count, true)),
            Err(error) => {
                short_file::warn(&error);
                sender.send_reset(Reason::INTERNAL_ERROR);
                return Ok((count, false));
            }
        }
    }
}

/// Waits until the visitor's window and the connection take more, at most `wanted` bytes of it; late
/// when they take none for `stall`.
async fn capacity(
    sender: &mut SendStream<Bytes>,
    wanted: usize,
    stall: Duration,
) -> Result<usize, h2::Error> {
    sender.reserve_capacity(wanted);
    let capacity = async {
        loop {
            match poll_fn(|cx| sender.poll_capacity(cx)).await {
                // Told of a change that left nothing.
                Some(Ok(0)) => {}
                changed => return changed,
            }
        }
    };
    match tokio::time::timeout(stall, capacity).await {
        Ok(Some(room)) => Ok(room?.min(wanted)),
        Ok(None) => Err(Reason::CANCEL.into()),
        Err(_) => {
            sender.send_reset(Reason::CANCEL);
            Err(Reason::CANCEL.into())
        }
    }
}

/// Sends as the visitor's window allows.
pub(super) async fn send_data(
    sender: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
    stall: Duration,
) -> Result<(), h2::Error> {
    if data.is_empty() {
        return if ends { sender.send_data(data, true) } else { Ok(()) };
    }
    while !data.is_empty() {
        let room = capacity(sender, data.len(), stall).await?;
        let piece = data.split_to(room.min(data.len()));
        sender.send_data(piece, ends && data.is_empty())?;
    }
    Ok(())
}
