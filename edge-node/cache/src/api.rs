//! The types at the cache's doors.

use crate::open_file::OpenFile;
use crate::site_name::SiteName;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use std::sync::Arc;
use verge_config::site::CachePolicy;

/// An error's cause, whatever it is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Content that streams.
pub type StreamBody = UnsyncBoxBody<Bytes, BoxError>;

/// A request as the cache sees it: already admitted and routed. Borrowed, so that a hit copies nothing.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The site; no object is ever shared between two.
    pub site: &'a SiteName,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The normalised host.
    pub host: &'a str,
    /// The raw path, as it is forwarded.
    pub path: &'a str,
    /// The raw query without its `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The visitor's fields, hop-by-hop ones already removed.
    pub headers: &'a HeaderMap,
    /// The route's policy.
    pub policy: &'a Arc<CachePolicy>,
}

/// What the cache asks a source for. The source builds the rest from what it was made with.
#[derive(Debug)]
pub struct SourceRequest {
    /// GET, or HEAD for what is not stored.
    pub method: Method,
    /// The visitor's fields, those changed that the cache rules over: conditions and `Range` are
    /// replaced by its own validators, `Accept-Encoding` is normalised.
    pub headers: HeaderMap,
}

/// What a source answers.
pub struct SourceResponse {
    /// The final status.
    pub status: StatusCode,
    /// Its fields, hop-by-hop ones already removed.
    pub headers: HeaderMap,
    /// Its content. An error in it is an incomplete response: never stored as whole.
    pub body: StreamBody,
    /// Whether the end of its content can be told from a connection that broke off. What has no such
    /// end is never stored.
    pub delimited: bool,
}

/// A source's failure before a response: what the edge answers when nothing stale may be served.
pub type SourceError = BoxError;

/// Where a response comes from: an origin pool or a handler. Made by the edge for one request; a fill
/// may outlive the visitor that started it.
pub trait Source: Send + Sync + 'static {
    /// Fetches once.
    ///
    /// # Errors
    /// Whatever kept the source from answering; the cache passes it on to the visitor's side as is.
    fn fetch(
        &self,
        request: SourceRequest,
    ) -> BoxFuture<'static, Result<SourceResponse, SourceError>>;
}

/// What the cache answers.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// All fields for the visitor: `Age` and `Cache-Status` are in, `Cache-Tag`, `Surrogate-Key` and
    /// `Verge-CDN-Cache-Control` are out, `Content-Length` is set whenever it is known.
    pub headers: HeaderMap,
    /// The content; empty for HEAD, 204 and 304.
    pub body: Body,
    /// The same as the `Cache-Status` field, for logs and counters.
    pub outcome: Outcome,
}

/// Bytes of a file on disk: content that is sent without being read into memory.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// The file.
    pub file: Arc<OpenFile>,
    /// Where the content begins, in bytes.
    pub offset: u64,
    /// The content's length in bytes.
    pub len: u64,
}

/// A fresh hit's content: whatever can be sent without waiting for a source.
#[derive(Debug, Clone)]
pub enum HitContent {
    /// None.
    Empty,
    /// All of it, in memory, in one piece with the stored header section.
    Inline,
    /// All of it, in memory.
    Whole(Bytes),
    /// All of it, in a file.
    File(FilePart),
}

/// A response's content.
pub enum Body {
    /// None.
    Empty,
    /// All of it at once.
    Whole(Bytes),
    /// All of it, in a file.
    File(FilePart),
    /// As it arrives, or in parts.
    Stream(StreamBody),
}

/// How a request went through the cache (RFC 9211 section 2.2 has the words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Fresh, from the store.
    Hit,
    /// Stale and allowed: while it is revalidated, or since the source failed.
    Stale,
    /// Confirmed by the source's 304.
    Revalidated,
    /// Not stored before.
    Miss,
    /// Joined another request's fill.
    Collapsed,
    /// Not for the cache: method, policy, a directive, hit-for-miss.
    Bypass,
}
