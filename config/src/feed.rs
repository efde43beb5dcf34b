//! The messages between the control plane and its edges: the feed's lines one way, reports the other.
//!
//! Rule for mixed versions: a reader ignores fields that it does not know, and treats a line of an
//! unknown type as applied, so that an older edge keeps its place in the feed of a newer control plane.

use crate::kv::EntryChanged;
use crate::preview::Previews;
use crate::purge::{Mode, Purge, Selector};
use crate::revision::Revision;
use crate::site::SiteDocument;
use crate::tail::Tail;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest line of the feed, in bytes; a longer one is a broken stream.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// The most samples that an edge gives of what a purge would be for.
pub const MAX_SAMPLES: usize = 10;
/// The longest sample, in bytes; a longer one is cut.
pub const MAX_SAMPLE_BYTES: usize = 2 * 1024;
/// The largest answer to a question, in bytes of JSON.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The most answers in one report; with as many of the largest it stays below what the API reads.
pub const MAX_ANSWERS: usize = 8;

/// One line of `GET /v1/feed?since=<revision>`: JSON, ended by a line feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FeedLine {
    /// The first line of every stream.
    Hello {
        /// The newest revision at the time of writing.
        head: Revision,
        /// The purge log no longer reaches back to `since` (or `since` is not of this history): the
        /// edge must drop its cache before it applies what follows.
        flush: bool,
        /// Names the history; an edge that was fed by another one starts again from zero.
        history: String,
    },
    /// A site as it is from this revision on; whole, so that a replay is harmless.
    Site {
        /// Its revision.
        revision: Revision,
        /// The site's name.
        site: String,
        /// The active version.
        version: u64,
        /// The validated document, with components by digest.
        document: Arc<SiteDocument>,
    },
    /// A site that is no longer served from this revision on.
    SiteRemoved {
        /// Its revision.
        revision: Revision,
        /// The site's name.
        site: String,
    },
    /// The previews of a site as they are from this revision on; whole, so that a replay is harmless.
    Previews(Previews),
    /// The secrets of a site have changed. They themselves are never told here: the edge fetches them
    /// with its credential.
    Secrets {
        /// The revision of the last change.
        revision: Revision,
        /// The site's name.
        site: String,
    },
    /// A purge.
    Purge(Purge),
    /// An entry of a site's key-value store has changed.
    Entry(EntryChanged),
    /// Something that the control plane wants to know now. It is no part of history: it has no
    /// revision, is not kept, and is told to the edges that are connected while it is open. Edges
    /// that do not know it leave it unanswered.
    Question(Question),
    /// Everything up to `head` has been sent; also the sign of life on a quiet feed.
    Head {
        /// The newest revision.
        head: Revision,
    },
    /// A line of a newer control plane.
    #[serde(other)]
    Unknown,
}

/// A question to an edge; it is answered in the edge's next report, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Names it in the answer.
    pub id: String,
    /// What is asked.
    pub asked: Asked,
}

/// What an edge can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Asked {
    /// How many stored objects a purge would be for, with samples.
    Preview {
        /// The site.
        site: String,
        /// What it would select.
        selectors: Vec<Selector>,
        /// What it would do.
        #[serde(default)]
        mode: Mode,
    },
    /// What would become of a GET of a URL, and why.
    Explain {
        /// The site that the asker may know of: an edge where the host is another's says nothing.
        site: String,
        /// The URL, with scheme and host.
        url: String,
        /// Fields of the request: names and values.
        #[serde(default)]
        fields: Vec<(String, String)>,
    },
    /// To tell of a site's requests for a while. It stays open, and is asked again before it ends.
    Tail(Tail),
    /// A kind that only a newer control plane knows.
    #[serde(other)]
    Unknown,
}

/// An edge's answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The question's.
    pub id: String,
    /// What the edge says.
    pub told: Told,
}

/// What an edge says to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Told {
    /// To [`Asked::Preview`].
    Preview {
        /// How many stored objects.
        matched: u64,
        /// URLs of some of them, at most [`MAX_SAMPLES`].
        #[serde(default)]
        samples: Vec<String>,
    },
    /// To [`Asked::Explain`].
    Explained {
        /// The explanation, as the edge's own admin listener gives it.
        explanation: serde_json::Value,
    },
    /// To [`Asked::Tail`]: what is asked for goes into batches of their own.
    Tailing,
    /// The edge gives no answer, and why.
    Refused {
        /// For the asker.
        reason: String,
    },
    /// A kind that only a newer edge knows.
    #[serde(other)]
    Unknown,
}

/// The longest silence on a feed, in seconds: the control plane sends [`FeedLine::Head`] more often,
/// and an edge that hears nothing for three times as long reconnects.
pub const HEARTBEAT_SECONDS: u64 = 5;

/// What an edge tells of itself: the body of `POST /v1/edges/self/reports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Everything up to this revision is applied or refused.
    pub applied: Revision,
    /// Purges applied since the last report that was answered.
    #[serde(default)]
    pub purges: Vec<AppliedPurge>,
    /// What it refuses at present, whole: the last good version stays in force.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// The edge's software version.
    #[serde(default)]
    pub version: String,
    /// Answers to questions, at most [`MAX_ANSWERS`]; each is told once and may be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
}

/// One purge as one edge applied it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedPurge {
    /// The purge's revision.
    pub revision: Revision,
    /// How many stored objects it selected here.
    pub matched: u64,
    /// How long it took here from its line on the feed, in microseconds.
    pub took_us: u64,
}

/// A resource that an edge cannot take, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The revision refused.
    pub revision: Revision,
    /// The site that it is of.
    pub site: String,
    /// The reason, for the developer.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_yet_is_left_alone() {
        let line =
            r#"{"type": "question", "id": "q", "asked": {"kind": "weather", "where": "here"}}"#;
        let line: FeedLine = serde_json::from_str(line).unwrap();
        let FeedLine::Question(question) = line else { panic!("{line:?}") };
        assert_eq!(question.asked, Asked::Unknown);
        let answer = r#"{"id": "q", "told": {"kind": "rain", "much": 3}}"#;
        let answer: Answer = serde_json::from_str(answer).unwrap();
        assert_eq!(answer.told, Told::Unknown);
        let line = r#"{"type": "sunrise", "at": 5}"#;
        assert!(matches!(serde_json::from_str(line).unwrap(), FeedLine::Unknown));
    }

    #[test]
    fn a_question_is_read_as_it_is_written() {
        let asked = Asked::Preview {
            site: "shop".into(),
            selectors: vec![Selector::Tag("a".into()), Selector::Everything(true)],
            mode: Mode::Soft,
        };
        let question = Question { id: "q1".into(), asked };
        let text = serde_json::to_string(&FeedLine::Question(question.clone())).unwrap();
        assert!(text.starts_with(r#"{"type":"question","id":"q1","#), "{text}");
        let FeedLine::Question(read) = serde_json::from_str(&text).unwrap() else {
            panic!("{text}")
        };
        assert_eq!(read, question);
    }

    #[test]
    fn a_report_without_answers_is_as_it_was() {
        let text = serde_json::to_string(&Report::default()).unwrap();
        assert!(!text.contains("answers"), "{text}");
        let report: Report = serde_json::from_str(r#"{"applied": 3}"#).unwrap();
        assert!(report.answers.is_empty());
    }
}
