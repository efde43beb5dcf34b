//! What a guest may reach: the trait that the edge implements for each request. Nothing else of the
//! outside is known here.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use verge_config::kv::KeyPage;
use verge_config::process::Secret;

use crate::Body;
use crate::outcome::{End, Usage};

/// The outside of one request's guest.
pub trait Host: Send + Sync + 'static {
    /// Sends a guest's request, whose URI is absolute, and gives the response once its head is
    /// there. Dropping the future or the body cancels it.
    fn fetch(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, FetchError>>;

    /// Takes a line of the handler's log. Called from the guest's own task: it must not block.
    fn log(&self, line: LogLine);

    /// The value that a handler of the site put into the cache under a key, while it is fresh.
    /// Dropping the future cancels it; so it is with the other calls of the cache.
    fn cache_get(&self, key: String) -> BoxFuture<'static, Result<Option<Bytes>, Unavailable>> {
        let _ = key;
        unavailable("no cache here")
    }

    /// Puts a value into the cache, for the handlers of this site alone.
    fn cache_put(&self, entry: CacheEntry) -> BoxFuture<'static, Result<(), Unavailable>> {
        let _ = entry;
        unavailable("no cache here")
    }

    /// Purges what of the site carries one of these tags, here, and tells how much there was.
    fn cache_purge(&self, tags: Vec<String>) -> BoxFuture<'static, Result<u64, Unavailable>> {
        let _ = tags;
        unavailable("no cache here")
    }

    /// The value of a key in the site's key-value store. Dropping the future cancels it; a write that
    /// has begun may come about all the same.
    fn kv_get(&self, key: String) -> BoxFuture<'static, Result<Option<Bytes>, Unavailable>> {
        let _ = key;
        unavailable("no key-value store here")
    }

    /// Writes the value of a key, or removes what is there; durable when it returns.
    fn kv_set(
        &self,
        key: String,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        let _ = (key, value);
        unavailable("no key-value store here")
    }

    /// The site's keys in their order, without the first `skip`.
    fn kv_keys(&self, skip: u64) -> BoxFuture<'static, Result<KeyPage, Unavailable>> {
        let _ = skip;
        unavailable("no key-value store here")
    }

    /// Who asks.
    ///
    /// # Errors
    /// When nothing is known of the visitor.
    fn visitor(&self) -> Result<Visitor, Unavailable> {
        Err(Unavailable("no visitor is known here".to_owned()))
    }

    /// The site's secret of a name. Called from the guest's own task: it must not block.
    fn secret(&self, name: &str) -> Option<Secret> {
        let _ = name;
        None
    }

    /// Hears, once, how the request ended and what it used. Called from the guest's own task: it
    /// must not block.
    fn ended(&self, end: &End, usage: &Usage) {
        let _ = (end, usage);
    }
}

fn unavailable<T: Send + 'static>(why: &str) -> BoxFuture<'static, Result<T, Unavailable>> {
    Box::pin(std::future::ready(Err(Unavailable(why.to_owned()))))
}

/// Why the edge cannot do what a guest asks for; the guest is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A value for the cache; within the bounds of [`limits`](crate::limits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// What it is found by; any text.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// How long it is fresh, in seconds; at least one.
    pub ttl: u32,
    /// What purges find it by; none has a comma or a space in it.
    pub tags: Vec<String>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// The address.
    pub address: IpAddr,
    /// Whether the request came by `https`.
    pub is_https: bool,
    /// What is known of an encrypted connection.
    pub tls: Option<Tls>,
    /// The country of the address (ISO 3166-1 alpha-2), where it is known.
    pub country: Option<String>,
    /// The edge's id.
    pub edge: Arc<str>,
}

/// What is known of an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The protocol's version, as in `TLSv1.3`.
    pub version: &'static str,
    /// The name that the visitor asked a certificate for.
    pub server_name: Option<String>,
}

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// The guest, to its standard output.
    Stdout,
    /// The guest, to its standard error.
    Stderr,
    /// The guest, through `wasi:logging`, with this level.
    Logging(LogLevel),
    /// The sandbox, about the guest.
    Host,
}

/// How much a message of `wasi:logging` matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// The flow of control.
    Trace,
    /// For whoever debugs the handler.
    Debug,
    /// For whoever watches over it.
    Info,
    /// What may become a fault.
    Warn,
    /// A serious fault.
    Error,
    /// A fatal fault.
    Critical,
}

impl LogLevel {
    /// A stable word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
            LogLevel::Critical => "critical",
        }
    }
}

impl LogStream {
    /// A stable word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
            LogStream::Logging(_) => "logging",
            LogStream::Host => "host",
        }
    }

    /// The level that the guest gave it, where it gave one.
    #[must_use]
    pub fn level(self) -> Option<LogLevel> {
        match self {
            LogStream::Logging(level) => Some(level),
            LogStream::Stdout | LogStream::Stderr | LogStream::Host => None,
        }
    }
}

/// A line of a handler's log, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Who wrote it.
    pub stream: LogStream,
    /// The context that a message of `wasi:logging` came with, cut where it is long; empty otherwise.
    pub context: String,
    /// What was written; bytes that are no UTF-8 are replaced.
    pub message: String,
}

/// Why a guest's request got no response. The guest is told the kind, its log the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The site does not grant this destination.
    #[error("not allowed: {0}")]
    Refused(String),
    /// The name does not resolve.
    #[error("the name does not resolve: {0}")]
    Dns(String),
    /// Nobody answers there.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It took too long.
    #[error("took too long")]
    Timeout,
    /// What was answered is not HTTP, or broke off.
    #[error("broken response: {0}")]
    Protocol(String),
    /// The request is not one that can be sent.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// The request came round in a loop (RFC 8586).
    #[error("the request runs in a loop")]
    Loop,
    /// The request has used up its fetches.
    #[error("more than {0} fetches")]
    TooMany(u32),
    /// All the handlers of a route together have run as often for the visitor's request as they may.
    #[error("the route's handlers have run {0} times for this request, and may not once more")]
    TooManyRuns(u32),
    /// A fault of the edge's own.
    #[error("internal error: {0}")]
    Internal(String),
}
