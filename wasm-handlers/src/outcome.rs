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

/// Every end's name, each once.
const NAMES: [&str; 17] = [
    "responded",
    "cancelled",
    "trapped",
    "out_of_cpu",
    "out_of_memory",
    "timed_out",
    "no_response",
    "guest_error",
    "loop",
    "exited",
    "incomplete",
    "head_too_large",
    "instance_limit",
    "busy",
    "tripped",
    "bad_request",
    "internal",
];

impl End {
    /// Stable words for metrics, one for each end, at [`End::index`].
    pub const NAMES: &'static [&'static str; 17] = &NAMES;

    /// A stable word for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAMES.get(self.index()).copied().unwrap_or_default()
    }

    /// The end's place in [`End::NAMES`].
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            End::Responded => 0,
            End::Cancelled => 1,
            End::Failed(ended) => ended.index(),
        }
    }

    /// What the end says of the handler itself, whoever asked and however busy the edge is.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            End::Responded => Verdict::Good,
            End::Cancelled => Verdict::Neither,
            End::Failed(ended) => match ended {
                Ended::Trapped { .. }
                | Ended::OutOfCpu(_)
                | Ended::OutOfMemory(_)
                | Ended::TimedOut(_)
                | Ended::NoResponse
                | Ended::GuestError(_)
                | Ended::Exited(_)
                | Ended::Incomplete
                | Ended::HeadTooLarge(_) => Verdict::Fault,
                Ended::Loop
                | Ended::InstanceLimit(_)
                | Ended::Busy(_)
                | Ended::Tripped(_)
                | Ended::BadRequest(_)
                | Ended::Internal(_) => Verdict::Neither,
            },
        }
    }
}

/// What an end says of the handler itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It did what it is for.
    Good,
    /// It failed, and by its own fault.
    Fault,
    /// Nothing: it never ran, or what it met was not its own.
    Neither,
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
    /// The site's handlers have as many requests as they may, and none ended in time.
    #[error(
        "{0} requests of the site's handlers are running; answer faster, or raise handler_concurrency"
    )]
    Busy(u32),
    /// The handler kept failing and is left alone for a while.
    #[error("the handler kept failing and is left alone; it is tried again in {} s; see what its requests ended with before", seconds(*.0))]
    Tripped(Duration),
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
            Ended::OutOfCpu(_) | Ended::InstanceLimit(_) | Ended::Busy(_) | Ended::Tripped(_) => {
                http::StatusCode::SERVICE_UNAVAILABLE
            }
            Ended::TimedOut(_) => http::StatusCode::GATEWAY_TIMEOUT,
            Ended::Loop => http::StatusCode::LOOP_DETECTED,
            Ended::BadRequest(_) => http::StatusCode::BAD_REQUEST,
        }
    }

    /// A stable word for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAMES.get(self.index()).copied().unwrap_or_default()
    }

    /// After how long another attempt may do, where there is an attempt that may.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Ended::Tripped(wait) => Some(*wait),
            Ended::OutOfCpu(_) | Ended::InstanceLimit(_) | Ended::Busy(_) => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }

    fn index(&self) -> usize {
        match self {
            Ended::Trapped { .. } => 2,
            Ended::OutOfCpu(_) => 3,
            Ended::OutOfMemory(_) => 4,
            Ended::TimedOut(_) => 5,
            Ended::NoResponse => 6,
            Ended::GuestError(_) => 7,
            Ended::Loop => 8,
            Ended::Exited(_) => 9,
            Ended::Incomplete => 10,
            Ended::HeadTooLarge(_) => 11,
            Ended::InstanceLimit(_) => 12,
            Ended::Busy(_) => 13,
            Ended::Tripped(_) => 14,
            Ended::BadRequest(_) => 15,
            Ended::Internal(_) => 16,
        }
    }
}

/// Whole seconds, rounded up, at least one: what `Retry-After` can say (RFC 9110 section 10.2.3).
#[must_use]
pub fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
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
    /// Bytes of the request's content that it has taken.
    pub bytes_in: u64,
    /// Bytes of its response's content that its reader has taken.
    pub bytes_out: u64,
    /// It was its visitor who was waited for when it ended: content of the request was still to come,
    /// or nobody read what there was of the response.
    pub waits_for_visitor: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_end_has_a_name_of_its_own() {
        let wait = Duration::from_millis(1_500);
        let failed = [
            Ended::Trapped { reason: String::new(), backtrace: String::new() },
            Ended::OutOfCpu(wait),
            Ended::OutOfMemory(1),
            Ended::TimedOut(wait),
            Ended::NoResponse,
            Ended::GuestError(String::new()),
            Ended::Loop,
            Ended::Exited(1),
            Ended::Incomplete,
            Ended::HeadTooLarge(String::new()),
            Ended::InstanceLimit(1),
            Ended::Busy(1),
            Ended::Tripped(wait),
            Ended::BadRequest(String::new()),
            Ended::Internal(String::new()),
        ];
        let ends = [End::Responded, End::Cancelled].into_iter();
        let ends: Vec<End> = ends.chain(failed.into_iter().map(End::Failed)).collect();
        assert_eq!(ends.len(), NAMES.len());
        let names: BTreeSet<_> = ends.iter().map(End::name).collect();
        assert_eq!(names, NAMES.into_iter().collect());
        for end in &ends {
            if let End::Failed(ended) = end {
                let again = ended.status() == http::StatusCode::SERVICE_UNAVAILABLE;
                assert_eq!(again, ended.retry_after().is_some(), "{ended}");
                assert!(ended.status().is_client_error() || ended.status().is_server_error());
            }
        }
        assert_eq!(End::Failed(Ended::Busy(1)).verdict(), Verdict::Neither);
        assert_eq!(End::Failed(Ended::NoResponse).verdict(), Verdict::Fault);
        assert_eq!((seconds(wait), seconds(Duration::ZERO)), (2, 1));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(brief("short", 5), "short");
        assert_eq!(brief("longer", 5), "longe…");
        assert_eq!(brief("äöü", 3), "ä…");
        assert_eq!(brief("", 0), "");
    }
}
