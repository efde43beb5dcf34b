//! What handlers have used, as edges report it and the control plane tells it. Pure values: sums
//! saturate, so that no number of anybody's can overflow.
//!
//! An edge numbers its batches 1, 2, 3, … within an epoch, a random id that it makes for a new state
//! folder. A batch that may have been sent never changes; the control plane applies a batch whose
//! number is above the highest of its epoch, and acknowledges any other without counting it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An hour, in milliseconds: what usage is kept by.
pub const HOUR_MS: u64 = 3_600_000;
/// The most items of a batch.
pub const MAX_BATCH_ITEMS: usize = 500;
/// The most outcomes of an item.
pub const MAX_OUTCOMES: usize = 32;
/// The longest name of an outcome, in bytes.
pub const MAX_OUTCOME_BYTES: usize = 32;
/// The longest epoch, in bytes.
pub const MAX_EPOCH_BYTES: usize = 64;

/// What requests have used together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Requests, by how they ended.
    #[serde(default)]
    pub outcomes: BTreeMap<String, u64>,
    /// Time on a CPU, in microseconds.
    #[serde(default)]
    pub cpu_us: u64,
    /// Time by the clock, in microseconds.
    #[serde(default)]
    pub wall_us: u64,
    /// The peak memory of each request times its time by the clock, in KiB × milliseconds.
    #[serde(default)]
    pub memory_kib_ms: u64,
    /// Outgoing requests.
    #[serde(default)]
    pub fetches: u64,
    /// Bytes of content from visitors.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes of content to visitors.
    #[serde(default)]
    pub bytes_out: u64,
}

/// What one version of a handler has used in one hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageItem {
    /// The site.
    pub site: String,
    /// The handler; empty where those of a site were summed up for want of room.
    pub handler: String,
    /// The site's version; 0 where those of a site were summed up for want of room.
    pub version: u64,
    /// Hours since the Unix epoch, in UTC.
    pub hour: u64,
    /// What it used.
    pub sums: Sums,
}

/// A numbered batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageBatch {
    /// Its number in the edge's epoch, from 1.
    pub number: u64,
    /// At most [`MAX_BATCH_ITEMS`].
    pub items: Vec<UsageItem>,
}

/// The body of `POST /v1/edges/self/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// The edge's epoch.
    pub epoch: String,
    /// A batch; without one, the edge only asks how far its epoch is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<UsageBatch>,
}

/// The answer to a [`UsageReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageAck {
    /// The highest number of the epoch that is counted; 0 before the first.
    pub applied: u64,
}

/// The periods by which usage is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// Hours.
    Hour,
    /// Days, in UTC.
    Day,
    /// The whole time that was asked for.
    #[default]
    Total,
}

/// One row of `GET /v1/sites/{site}/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// Where its period begins: milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Where its period ends.
    pub to_ms: u64,
    /// The handler; see [`UsageItem::handler`].
    pub handler: String,
    /// The site's version; see [`UsageItem::version`].
    pub version: u64,
    /// All requests.
    pub requests: u64,
    /// What they used.
    #[serde(flatten)]
    pub sums: Sums,
}

// === impl Sums ===

impl Sums {
    /// Adds what others have used.
    pub fn add(&mut self, other: &Sums) {
        for (outcome, count) in &other.outcomes {
            match self.outcomes.get_mut(outcome) {
                Some(sum) => *sum = sum.saturating_add(*count),
                None => {
                    self.outcomes.insert(outcome.clone(), *count);
                }
            }
        }
        for (sum, more) in [
            (&mut self.cpu_us, other.cpu_us),
            (&mut self.wall_us, other.wall_us),
            (&mut self.memory_kib_ms, other.memory_kib_ms),
            (&mut self.fetches, other.fetches),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.outcomes.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

// === impl UsageBy ===

impl UsageBy {
    /// The word for it, as the API takes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<UsageBy> {
        match text {
            "hour" => Some(UsageBy::Hour),
            "day" => Some(UsageBy::Day),
            "total" => Some(UsageBy::Total),
            _ => None,
        }
    }

    /// The word for it, as [`UsageBy::parse`] reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            UsageBy::Hour => "hour",
            UsageBy::Day => "day",
            UsageBy::Total => "total",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(outcome: &str, count: u64) -> Sums {
        Sums {
            outcomes: BTreeMap::from([(outcome.to_owned(), count)]),
            cpu_us: count,
            bytes_out: u64::MAX,
            ..Sums::default()
        }
    }

    #[test]
    fn sums_are_by_outcome_and_saturate() {
        let mut all = sums("responded", 3);
        all.add(&sums("responded", 4));
        all.add(&sums("trapped", 2));
        assert_eq!(all.outcomes["responded"], 7);
        assert_eq!((all.requests(), all.cpu_us, all.bytes_out), (9, 9, u64::MAX));
    }

    #[test]
    fn what_a_newer_side_says_besides_is_ignored() {
        let text = r#"{"epoch": "e", "colour": "red", "batch": {"number": 1, "items": [
            {"site": "s", "handler": "h", "version": 1, "hour": 5, "sums": {"cpu_us": 2, "joules": 9}}]}}"#;
        let report: UsageReport = serde_json::from_str(text).unwrap();
        assert_eq!(report.batch.unwrap().items[0].sums.cpu_us, 2);
        let asking = UsageReport { epoch: "e".into(), batch: None };
        assert_eq!(serde_json::to_string(&asking).unwrap(), r#"{"epoch":"e"}"#);
        let negative = r#"{"epoch": "e", "batch": {"number": -1, "items": []}}"#;
        assert!(serde_json::from_str::<UsageReport>(negative).is_err());
    }

    #[test]
    fn periods_are_read_as_they_are_written() {
        for by in [UsageBy::Hour, UsageBy::Day, UsageBy::Total] {
            assert_eq!(UsageBy::parse(by.name()), Some(by));
        }
        assert_eq!(UsageBy::parse("week"), None);
    }
}
