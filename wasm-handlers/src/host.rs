//! What a guest may reach: the trait that the edge implements for each request. Nothing else of the
//! outside is known here.

use futures::future::BoxFuture;
use http::{Request, Response};

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

    /// Hears, once, how the request ended and what it used. Called from the guest's own task: it
    /// must not block.
    fn ended(&self, end: &End, usage: &Usage) {
        let _ = (end, usage);
    }
}

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// The guest, to its standard output.
    Stdout,
    /// The guest, to its standard error.
    Stderr,
    /// The sandbox, about the guest.
    Host,
}

impl LogStream {
    /// A stable word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
            LogStream::Host => "host",
        }
    }
}

/// A line of a handler's log, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Who wrote it.
    pub stream: LogStream,
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
    /// A fault of the edge's own.
    #[error("internal error: {0}")]
    Internal(String),
}
