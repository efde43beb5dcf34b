//! A live tail of a site's requests: what is asked for, and what an edge tells of a request. Values
//! only; nothing here is kept, and nothing of it is history.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// How long an edge tells of requests without being asked again.
pub const LEASE_SECONDS: u64 = 30;
/// How often the control plane asks again while somebody reads.
pub const RENEW_SECONDS: u64 = 10;
/// The longest silence on a tail that is open: then comes [`TailLine::Alive`].
pub const ALIVE_SECONDS: u64 = 5;
/// The shortest time between two batches of an edge, in milliseconds.
pub const BATCH_EVERY_MS: u64 = 200;
/// About the most bytes of one batch; one event is less.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;
/// The most events that wait for one tail, on an edge and again in the control plane.
pub const MAX_WAITING: usize = 1_000;
/// About the most bytes of them.
pub const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// The most lines of its handler that an event carries, and the most bytes of them.
pub const MAX_LINES: usize = 100;
/// See [`MAX_LINES`].
pub const MAX_LINES_BYTES: usize = 16 * 1024;
/// The longest path or query of an event, in bytes; a longer one is cut.
pub const MAX_PATH_BYTES: usize = 2 * 1024;
/// The longest host, method, handler or outcome of an event or a filter, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// The most edges that a filter names.
pub const MAX_EDGES: usize = 100;
/// The sample that is everything, in parts per million.
pub const WHOLE: u32 = 1_000_000;

/// What an edge is asked to tell of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Names it in batches.
    pub id: String,
    /// The site whose requests it is about.
    pub site: String,
    /// Which of them.
    #[serde(default)]
    pub filter: Filter,
    /// How long it holds, unless it is asked for again.
    pub lease_seconds: u64,
}

/// Which requests are told of, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Those of the routes of this handler only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Those with such a status only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Statuses>,
    /// Those that ended so only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Those whose path begins so only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Those on these edges only; on all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<String>,
    /// How many of them, at random: parts per million.
    #[serde(default = "whole")]
    pub sample: u32,
    /// With their queries, which may hold secrets of visitors.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub query: bool,
}

fn whole() -> u32 {
    WHOLE
}

/// A status, or a class of them: `404`, `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Statuses {
    /// This one.
    One(u16),
    /// Those of this hundred.
    Class(u16),
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The handler of the request's route, or all of them: `auth>rewrite`.
    pub handler: Option<&'a str>,
    /// The response's status.
    pub status: u16,
    /// How it ended.
    pub outcome: &'a str,
    /// Its path.
    pub path: &'a str,
}

/// One request, as an edge tells of it. Holds no field of the request or the response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it began: milliseconds since the Unix epoch, by the edge's clock.
    pub at_ms: u64,
    /// The edge; the control plane writes who it was that told of it.
    #[serde(default)]
    pub edge: String,
    /// The site; absent where no site answers the host, which only the edge itself is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The host.
    pub host: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The response's status.
    pub status: u16,
    /// The response's content as sent, in bytes.
    pub bytes: u64,
    /// The handler of its route, or all of them: `auth>rewrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// How the handler's run, or the first one's, ended; where none ran, what the cache did, `answered` or `failed`.
    pub outcome: String,
    /// What the cache did, where the request went to it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// The time of the handler, or of all of them, on a CPU, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// From the first byte in to the last byte out, in microseconds.
    pub wall_us: u64,
    /// What the handler logged, at most [`MAX_LINES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
    /// How many lines it logged besides.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_lines: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A line of a handler's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `stdout`, `stderr`, `logging` for messages of `wasi:logging`, or `host` for what the sandbox says.
    pub stream: String,
    /// The level of a message: `trace`, `debug`, `info`, `warn`, `error` or `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// The context that a message came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Which of several handlers of the route wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// The line without its end.
    pub text: String,
}

impl Line {
    /// Its text and its context, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len() + self.context.as_ref().map_or(0, String::len)
    }
}

/// What an edge tells at once: the body of `POST /v1/edges/self/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The tail.
    pub tail: String,
    /// How many events went away on the edge since the last batch, for want of room or of a link.
    #[serde(default)]
    pub dropped: u64,
    /// The events, in the order of their ends.
    #[serde(default)]
    pub events: Vec<Event>,
}

/// The answer to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Whether anybody still reads; an edge forgets a tail that nobody does.
    pub open: bool,
}

/// A line of `GET /v1/sites/{site}/tail`. A reader passes over what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TailLine {
    /// The first one.
    Open {
        /// The site.
        site: String,
        /// The edges that are connected now.
        edges: Vec<String>,
    },
    /// A request.
    Request(Box<Event>),
    /// Requests that are not told of.
    Dropped {
        /// Where they went away.
        place: Place,
        /// The edge that they were on, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edge: Option<String>,
        /// How many.
        count: u64,
    },
    /// An edge that does not take part, and why.
    Refused {
        /// The edge.
        edge: String,
        /// In its words.
        reason: String,
    },
    /// A sign of life.
    Alive,
    /// A line of a newer control plane.
    #[serde(other)]
    Unknown,
}

/// Where events went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the edge: more than its link took.
    Edge,
    /// Before the reader: more than it took.
    Reader,
}

/// What waits for a slow taker, within bounds: what does not fit is counted.
#[derive(Debug)]
pub struct Backlog<T> {
    waiting: VecDeque<(T, usize)>,
    bytes: usize,
    dropped: u64,
}

// === impl Filter ===

impl Default for Filter {
    fn default() -> Filter {
        Filter {
            handler: None,
            status: None,
            outcome: None,
            path: None,
            edges: Vec::new(),
            sample: WHOLE,
            query: false,
        }
    }
}

impl Filter {
    /// Whether a request is one of those that are asked for; sampling is left to the caller.
    #[must_use]
    pub fn takes(&self, facts: &Facts<'_>) -> bool {
        let is_of = |handler: &str| {
            facts
                .handler
                .is_some_and(|all| all == handler || all.split('>').any(|one| one == handler))
        };
        self.handler.as_deref().is_none_or(is_of)
            && self.status.is_none_or(|statuses| statuses.holds(facts.status))
            && self.outcome.as_deref().is_none_or(|outcome| facts.outcome == outcome)
            && self.path.as_deref().is_none_or(|path| facts.path.starts_with(path))
    }

    /// Whether an edge takes part.
    #[must_use]
    pub fn names(&self, edge: &str) -> bool {
        self.edges.is_empty() || self.edges.iter().any(|name| name == edge)
    }
}

// === impl Statuses ===

impl Statuses {
    /// Whether a status is one of them.
    #[must_use]
    pub fn holds(self, status: u16) -> bool {
        match self {
            Statuses::One(one) => status == one,
            Statuses::Class(class) => status / 100 == class,
        }
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Statuses, String> {
        let wrong = || format!("{text:?} is no status; write for instance 404 or 5xx");
        let class = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"));
        let (number, bounds) =
            (class.unwrap_or(text), if class.is_some() { 1..=5 } else { 100..=599 });
        let number: u16 = number.parse().map_err(|_| wrong())?;
        if !bounds.contains(&number) {
            return Err(wrong());
        }
        Ok(if class.is_some() { Statuses::Class(number) } else { Statuses::One(number) })
    }
}

impl TryFrom<String> for Statuses {
    type Error = String;

    fn try_from(text: String) -> Result<Statuses, String> {
        text.parse()
    }
}

impl From<Statuses> for String {
    fn from(statuses: Statuses) -> String {
        statuses.to_string()
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statuses::One(status) => write!(f, "{status}"),
            Statuses::Class(class) => write!(f, "{class}xx"),
        }
    }
}

// === impl Event ===

impl Event {
    /// About how many bytes it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        // What its names and numbers take in JSON, and a line's.
        const BESIDES: usize = 300;
        const OF_A_LINE: usize = 32;
        let lines: usize = self.lines.iter().map(|line| line.bytes() + OF_A_LINE).sum();
        let query = self.query.as_ref().map_or(0, String::len);
        BESIDES + self.host.len() + self.path.len() + query + lines
    }
}

// === impl Backlog ===

impl<T> Default for Backlog<T> {
    fn default() -> Backlog<T> {
        Backlog { waiting: VecDeque::new(), bytes: 0, dropped: 0 }
    }
}

impl<T> Backlog<T> {
    /// Adds what takes so many bytes, or counts it where there is no room.
    pub fn push(&mut self, item: T, bytes: usize) {
        if self.waiting.len() >= MAX_WAITING || self.bytes + bytes > MAX_WAITING_BYTES {
            self.lost(1);
            return;
        }
        self.bytes += bytes;
        self.waiting.push_back((item, bytes));
    }

    /// Counts what went away elsewhere.
    pub fn lost(&mut self, count: u64) {
        self.dropped = self.dropped.saturating_add(count);
    }

    /// The oldest, up to about so many bytes and at least one; and how many went away since the last
    /// time.
    pub fn take(&mut self, bytes: usize) -> (Vec<T>, u64) {
        let (mut taken, mut weight) = (Vec::new(), 0);
        while weight < bytes {
            let Some((item, size)) = self.waiting.pop_front() else { break };
            self.bytes -= size;
            weight += size;
            taken.push(item);
        }
        (taken, std::mem::take(&mut self.dropped))
    }

    /// Whether there is nothing to take and nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }
}

/// A text of at most so many bytes, cut between characters.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_or_a_hundred() {
        for (text, holds, other) in [("404", 404, 403), ("5xx", 503, 499), ("2XX", 204, 304)] {
            let statuses: Statuses = text.parse().unwrap();
            assert!(statuses.holds(holds) && !statuses.holds(other), "{text}");
            let read: Statuses = serde_json::from_str(&format!("\"{statuses}\"")).unwrap();
            assert_eq!(read, statuses);
        }
        for text in ["", "xx", "6xx", "0xx", "99", "600", "5x", "abc", "-1"] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_filter_takes_what_has_all_of_it() {
        let facts = Facts { handler: Some("h"), status: 500, outcome: "trapped", path: "/api/x" };
        let every = Filter::default();
        assert!(every.takes(&facts) && every.names("one"));
        let filter = Filter {
            handler: Some("h".into()),
            status: Some(Statuses::Class(5)),
            outcome: Some("trapped".into()),
            path: Some("/api/".into()),
            edges: vec!["one".into()],
            ..Filter::default()
        };
        assert!(filter.takes(&facts) && filter.names("one") && !filter.names("two"));
        for (several, is_one) in [("a>h", true), ("h>a", true), ("hh>a", false)] {
            let facts = Facts { handler: Some(several), ..facts };
            assert_eq!(filter.takes(&facts), is_one, "{several}");
        }
        for other in [
            Facts { handler: None, ..facts },
            Facts { status: 200, ..facts },
            Facts { outcome: "responded", ..facts },
            Facts { path: "/x", ..facts },
        ] {
            assert!(!filter.takes(&other), "{other:?}");
        }
    }

    #[test]
    fn what_a_newer_side_says_is_left_alone() {
        let line: TailLine = serde_json::from_str(r#"{"type": "sunrise", "at": 5}"#).unwrap();
        assert_eq!(line, TailLine::Unknown);
        let tail = r#"{"id": "t", "site": "shop", "lease_seconds": 30, "more": 1}"#;
        let tail: Tail = serde_json::from_str(tail).unwrap();
        assert_eq!(tail.filter, Filter::default());
    }

    #[test]
    fn a_backlog_counts_what_it_has_no_room_for() {
        let mut backlog = Backlog::default();
        for n in 0..MAX_WAITING + 3 {
            backlog.push(n, 10);
        }
        let (taken, dropped) = backlog.take(30);
        assert_eq!((taken, dropped), (vec![0, 1, 2], 3));
        assert_eq!(backlog.take(1), (vec![3], 0), "one at least, and the count once");
        backlog.lost(2);
        let (rest, dropped) = backlog.take(usize::MAX);
        assert_eq!((rest.len(), dropped), (MAX_WAITING - 4, 2));
        assert!(backlog.is_empty());
        backlog.push(0, MAX_WAITING_BYTES);
        backlog.push(1, 1);
        assert_eq!(backlog.take(usize::MAX), (vec![0], 1), "bytes are bounded, too");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aüb", 2), "a");
        assert_eq!(cut("aüb", 3), "aü");
        assert_eq!(cut("a", 9), "a");
    }
}
