//! A response's header section as bytes, and how its content is delimited (RFC 9112). Pure.

use crate::serve::{Content, Reply};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use std::time::SystemTime;

/// How a response's content is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimited {
    /// It has none.
    Nothing,
    /// By its length.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection: HTTP/1.0 and no length.
    Close,
}

/// What a request says about the response to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// HEAD: fields as for GET, no content.
    pub(super) head: bool,
    /// HTTP/1.1: may be sent chunks.
    pub(super) http11: bool,
    /// The connection goes on afterwards.
    pub(super) keep_alive: bool,
}

/// How the content of `reply` is delimited for the request.
#[must_use]
pub(super) fn delimit(reply: &Reply, asked: Asked) -> Delimited {
    let status = reply.status;
    let none = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if asked.head || none {
        return Delimited::Nothing;
    }
    match &reply.content {
        Content::Empty => Delimited::Length(0),
        Content::Whole(bytes) => Delimited::Length(bytes.len() as u64),
        Content::File(part) => Delimited::Length(part.len),
        Content::Stream(_) => match declared_length(&reply.headers) {
            Some(length) => Delimited::Length(length),
            None if asked.http11 => Delimited::Chunked,
            None => Delimited::Close,
        },
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The header section, its empty line included.
#[must_use]
pub(super) fn head(reply: &Reply, asked: Asked, delimited: Delimited) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    status_line(&mut out, reply.status);
    for (name, value) in &reply.headers {
        // The connection is this hop's own affair.
        if *name == CONNECTION || *name == TRANSFER_ENCODING {
            continue;
        }
        if *name == CONTENT_LENGTH && delimited != Delimited::Nothing {
            continue;
        }
        field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    if !reply.headers.contains_key(DATE) {
        field(&mut out, b"date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    }
    match delimited {
        Delimited::Length(length) => {
            field(&mut out, b"content-length", length.to_string().as_bytes());
        }
        Delimited::Chunked => field(&mut out, b"transfer-encoding", b"chunked"),
        Delimited::Nothing => {
            // HEAD says the length that GET would have, where it is known (RFC 9110 section 9.3.2).
            if let (Some(length), true) = (reply.content.length(), asked.head)
                && !reply.headers.contains_key(CONTENT_LENGTH)
            {
                field(&mut out, b"content-length", length.to_string().as_bytes());
            }
        }
        Delimited::Close => {}
    }
    out.put_slice(connection(asked));
    out.put_slice(b"\r\n");
    out.freeze()
}

/// An interim response (RFC 9110 section 15.2).
#[must_use]
pub(super) fn interim(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    status_line(&mut out, status);
    for (name, value) in headers {
        field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

/// A 101's header section; `Upgrade` is among `headers`.
#[must_use]
pub(super) fn switching(headers: &HeaderMap) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    status_line(&mut out, StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in headers {
        field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    field(&mut out, b"connection", b"upgrade");
    out.put_slice(b"\r\n");
    out.freeze()
}

/// The `Connection` field that a response needs, or nothing.
#[must_use]
pub(super) fn connection(asked: Asked) -> &'static [u8] {
    match (asked.keep_alive, asked.http11) {
        (false, _) => b"connection: close\r\n",
        (true, false) => b"connection: keep-alive\r\n",
        (true, true) => b"",
    }
}

/// A chunk's size line.
#[must_use]
pub(super) fn chunk_size(length: usize) -> Bytes {
    Bytes::from(format!("{length:x}\r\n"))
}

/// The end of a chunked response, with its trailer fields.
#[must_use]
pub(super) fn last_chunk(trailers: Option<&HeaderMap>) -> Bytes {
    let Some(trailers) = trailers else { return Bytes::from_static(b"0\r\n\r\n") };
    let mut out = BytesMut::from(&b"0\r\n"[..]);
    for (name, value) in trailers {
        field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

fn status_line(out: &mut BytesMut, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
