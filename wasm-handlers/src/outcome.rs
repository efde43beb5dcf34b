//! How a request to a guest can end: all ends, each with its status, its name for metrics and a line
//! that tells the developer what to do. Pure values.

use std::borrow::Cow;
use std::time::Duration;

use crate::settings::limits;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With a whole response. What the guest did after it may still have failed.
    Responded,
    /// The client went away first, and the guest was stopped.
    Cancelled,
    /// Otherwise.
    Failed(Ended),
}

impl End {
    /// A stable word for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            End::Responded => "responded",
            End::Cancelled => "cancelled",
            End::Failed(ended) => ended.name(),
        }
    }
}

/// How a request ended that has no whole response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The guest trapped.
    #[error("the handler trapped: {reason}")]
    Trapped {
        /// What the trap was.
        reason: String,
        /// The WebAssembly frames, innermost first; empty when there are none.
        backtrace: String,
    },
    /// The guest used up its time on a CPU.
    #[error("the handler used more than its {} ms of CPU time; do less, or raise limits.cpu", .0.as_millis())]
    OutOfCpu(Duration),
    /// The guest failed after it was refused memory.
    #[error("the handler needs more than its {} MiB of memory; use less, or raise limits.memory", .0 >> 20)]
    OutOfMemory(u64),
    /// The wall clock ran out.
    #[error("the handler took longer than its {} ms; raise limits.wall, or wait for less", .0.as_millis())]
    TimedOut(Duration),
    /// The guest returned without a response.
    #[error("the handler returned without setting a response")]
    NoResponse,
    /// The guest answered with an error instead of a response.
    #[error("the handler answered with an error: {0}")]
    GuestError(String),
    /// The guest answered that its fetch runs in a loop (RFC 8586).
    #[error("the handler's fetch runs in a loop")]
    Loop,
    /// The guest called `exit`.
    #[error("the handler called exit with status {0}; return a response instead")]
    Exited(i32),
    /// The guest gave up its response before its end.
    #[error("the handler left its response unfinished")]
    Incomplete,
    /// The response's header section is over its limit.
    #[error("the response's header section is too large: {0}")]
    HeadTooLarge(String),
    /// No instance is free.
    #[error("no instance is free: {0} are running")]
    InstanceLimit(u32),
    /// The request is not one that can be given to a guest.
    #[error("the request cannot be given to a handler: {0}")]
    BadRequest(String),
    /// A fault of the sandbox's own.
    #[error("the handler could not be started: {0}")]
    Internal(String),
}

impl Ended {
    /// The guest answered with an error, and said so much of it.
    pub(crate) fn guest_error(reason: &str) -> Ended {
        Ended::GuestError(brief(reason, limits::REASON_BYTES).into_owned())
    }

    /// The status that a visitor gets. What is the handler's own fault is 500; what another attempt
    /// may not meet (the CPU budget, a free instance) is 503; a loop is 508 (RFC 5842), the wall
    /// clock 504.
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
        match self {
            Ended::Trapped { .. }
            | Ended::OutOfMemory(_)
            | Ended::NoResponse
            | Ended::GuestError(_)
            | Ended::Exited(_)
            | Ended::Incomplete
            | Ended::HeadTooLarge(_)
            | Ended::Internal(_) => http::StatusCode::INTERNAL_SERVER_ERROR,
            Ended::OutOfCpu(_) | Ended::InstanceLimit(_) => http::StatusCode::SERVICE_UNAVAILABLE,
            Ended::TimedOut(_) => http::StatusCode::GATEWAY_TIMEOUT,
            Ended::Loop => http::StatusCode::LOOP_DETECTED,
            Ended::BadRequest(_) => http::StatusCode::BAD_REQUEST,
        }
    }

    /// A stable word for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Ended::Trapped { .. } => "trapped",
            Ended::OutOfCpu(_) => "out_of_cpu",
            Ended::OutOfMemory(_) => "out_of_memory",
            Ended::TimedOut(_) => "timed_out",
            Ended::NoResponse => "no_response",
            Ended::GuestError(_) => "guest_error",
            Ended::Loop => "loop",
            Ended::Exited(_) => "exited",
            Ended::Incomplete => "incomplete",
            Ended::HeadTooLarge(_) => "head_too_large",
            Ended::InstanceLimit(_) => "instance_limit",
            Ended::BadRequest(_) => "bad_request",
            Ended::Internal(_) => "internal",
        }
    }
}

/// So many bytes of a text at most, and a sign where it was longer.
pub(crate) fn brief(text: &str, most: usize) -> Cow<'_, str> {
    match text.get(..text.floor_char_boundary(most)) {
        Some(kept) if kept.len() < text.len() => Cow::Owned(format!("{kept}…")),
        _ => Cow::Borrowed(text),
    }
}

/// What a request used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a CPU.
    pub cpu: Duration,
    /// Time by the clock, from the request to its end.
    pub wall: Duration,
    /// The most linear memory at a time, in bytes.
    pub peak_memory: u64,
    /// Outgoing requests.
    pub fetches: u32,
    /// Bytes of its log, before the cut.
    pub log_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(brief("short", 5), "short");
        assert_eq!(brief("longer", 5), "longe…");
        assert_eq!(brief("äöü", 3), "ä…");
        assert_eq!(brief("", 0), "");
    }
}
