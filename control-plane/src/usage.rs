//! What of an edge's report of usage may be counted, and what may be asked of the sums. Pure: `now`
//! and the state are given; may not touch the store or a socket.

use crate::state::State;
use verge_config::usage::{
    HOUR_MS, MAX_BATCH_ITEMS, MAX_EPOCH_BYTES, MAX_OUTCOME_BYTES, MAX_OUTCOMES, UsageBy, UsageItem,
    UsageReport,
};

/// How long sums are kept, in hours: 400 days.
pub(crate) const KEPT_HOURS: u64 = 400 * 24;
/// What is asked for when nothing is said: the last day.
const DEFAULT_MS: u64 = 24 * HOUR_MS;

/// A report as it is counted: what nobody could ask for is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// What counts.
    pub(crate) items: Vec<UsageItem>,
    /// How many items do not, of sites that were never here or from before what is kept.
    pub(crate) left_out: usize,
}

/// A question for sums: whole hours, the last one not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) from_hour: u64,
    pub(crate) to_hour: u64,
    pub(crate) by: UsageBy,
}

/// Why a report or a question cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the epoch must be 1 to {MAX_EPOCH_BYTES} letters and digits")]
    Epoch,
    #[error("a batch's number begins at 1")]
    Number,
    #[error("at most {MAX_BATCH_ITEMS} items in one batch")]
    TooMany,
    #[error("the parameter by must be hour, day or total")]
    By,
    #[error("the parameter to must be later than from")]
    Backwards,
    #[error("at most {} days at a time are told", KEPT_HOURS / 24)]
    TooLong,
}

/// What of a report counts.
///
/// # Errors
/// It is not one that an edge sends. Then nothing of it counts.
pub(crate) fn counted(report: UsageReport, state: &State, now_ms: u64) -> Result<Counted, Unfit> {
    let epoch = &report.epoch;
    let is_plain = epoch.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if epoch.is_empty() || epoch.len() > MAX_EPOCH_BYTES || !is_plain {
        return Err(Unfit::Epoch);
    }
    let Some(batch) = report.batch else { return Ok(Counted { items: vec![], left_out: 0 }) };
    if batch.number == 0 {
        return Err(Unfit::Number);
    }
    if batch.items.len() > MAX_BATCH_ITEMS {
        return Err(Unfit::TooMany);
    }
    let all = batch.items.len();
    let this_hour = now_ms / HOUR_MS;
    let oldest = this_hour.saturating_sub(KEPT_HOURS);
    let mut items = batch.items;
    items.retain(|item| {
        state.sites.contains_key(&item.site) && is_handler(&item.handler) && item.hour >= oldest
    });
    for item in &mut items {
        // An edge whose clock is ahead used it now.
        item.hour = item.hour.min(this_hour);
        item.sums.outcomes.retain(|name, _| is_outcome(name));
        while item.sums.outcomes.len() > MAX_OUTCOMES {
            item.sums.outcomes.pop_last();
        }
    }
    let left_out = all - items.len();
    Ok(Counted { items, left_out })
}

/// A handler's name, or none where an edge had no room for names.
fn is_handler(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The word of an outcome; newer edges may know more of them than are known here.
fn is_outcome(name: &str) -> bool {
    (1..=MAX_OUTCOME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// A question from its parameters, in milliseconds since the Unix epoch.
///
/// # Errors
/// It asks for nothing that could be told.
pub(crate) fn asked(
    from_ms: Option<u64>,
    to_ms: Option<u64>,
    by: Option<&str>,
    now_ms: u64,
) -> Result<Asked, Unfit> {
    let by = by.map_or(Some(UsageBy::default()), UsageBy::parse).ok_or(Unfit::By)?;
    let to_ms = to_ms.unwrap_or(now_ms);
    let from_ms = from_ms.unwrap_or_else(|| to_ms.saturating_sub(DEFAULT_MS));
    if from_ms >= to_ms {
        return Err(Unfit::Backwards);
    }
    let (from_hour, to_hour) = (from_ms / HOUR_MS, to_ms.div_ceil(HOUR_MS));
    // A whole time that begins and ends within hours takes up one hour more.
    if to_hour - from_hour > KEPT_HOURS + 1 {
        return Err(Unfit::TooLong);
    }
    Ok(Asked { from_hour, to_hour, by })
}

// === impl Asked ===

impl Asked {
    /// The hours of one period.
    pub(crate) fn period_hours(&self) -> u64 {
        match self.by {
            UsageBy::Hour => 1,
            UsageBy::Day => 24,
            UsageBy::Total => u64::from(u32::MAX),
        }
    }

    /// Where a period begins and ends, within what was asked for: milliseconds since the Unix epoch.
    pub(crate) fn period_ms(&self, period: u64) -> (u64, u64) {
        let hours = self.period_hours();
        let begin = period.saturating_mul(hours);
        let (from, to) = (begin.max(self.from_hour), begin.saturating_add(hours).min(self.to_hour));
        (from.saturating_mul(HOUR_MS), to.saturating_mul(HOUR_MS))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::state::SiteRecord;
    use std::collections::BTreeMap;
    use verge_config::Revision;
    use verge_config::usage::{Sums, UsageBatch};

    const NOW: u64 = 500_000 * HOUR_MS + 5;

    fn state() -> State {
        let site = SiteRecord {
            tenant: "a".to_owned(),
            versions: BTreeMap::new(),
            latest: 1,
            active: None,
            previous: None,
            revision: Revision(1),
            removed: true,
            previews: Default::default(),
            secrets: Default::default(),
            entries: Default::default(),
        };
        State { sites: BTreeMap::from([("shop".to_owned(), site)]), ..State::default() }
    }

    fn report(items: Vec<UsageItem>) -> UsageReport {
        UsageReport { epoch: "e1".into(), batch: Some(UsageBatch { number: 1, items }) }
    }

    fn item(site: &str, handler: &str, hour: u64) -> UsageItem {
        let (site, handler) = (site.to_owned(), handler.to_owned());
        UsageItem { site, handler, version: 1, hour, sums: Sums::default() }
    }

    #[test]
    fn what_nobody_could_ask_for_is_left_out() {
        let items = vec![
            item("shop", "greet", 499_999),
            item("shop", "", 500_007),
            item("elsewhere", "greet", 500_000),
            item("shop", "no name", 500_000),
            item("shop", "greet", 500_000 - KEPT_HOURS - 1),
        ];
        let counted = counted(report(items), &state(), NOW).unwrap();
        let hours: Vec<_> = counted.items.iter().map(|item| item.hour).collect();
        assert_eq!((hours, counted.left_out), (vec![499_999, 500_000], 3));
    }

    #[test]
    fn outcomes_are_words_and_bounded() {
        let mut one = item("shop", "greet", 500_000);
        let names =
            (0..40).map(|n| format!("o{}", char::from(b'a' + n % 26)).repeat(n as usize / 26 + 1));
        one.sums.outcomes = names.map(|name| (name, 1)).collect();
        one.sums.outcomes.insert("no word".to_owned(), 1);
        let counted = counted(report(vec![one]), &state(), NOW).unwrap();
        let outcomes = &counted.items[0].sums.outcomes;
        assert_eq!(outcomes.len(), MAX_OUTCOMES);
        assert!(!outcomes.contains_key("no word"));
    }

    #[test]
    fn what_no_edge_sends_counts_nothing() {
        let state = state();
        for epoch in ["", "a b", &"a".repeat(MAX_EPOCH_BYTES + 1)] {
            let report = UsageReport { epoch: epoch.to_owned(), batch: None };
            assert_eq!(counted(report, &state, NOW), Err(Unfit::Epoch));
        }
        let zero = UsageBatch { number: 0, items: vec![] };
        let zero = UsageReport { epoch: "e".into(), batch: Some(zero) };
        assert_eq!(counted(zero, &state, NOW), Err(Unfit::Number));
        let many = vec![item("shop", "greet", 1); MAX_BATCH_ITEMS + 1];
        assert_eq!(counted(report(many), &state, NOW), Err(Unfit::TooMany));
    }

    #[test]
    fn whole_hours_are_asked_for() {
        let day = asked(None, None, None, NOW).unwrap();
        assert_eq!((day.from_hour, day.to_hour, day.by), (499_976, 500_001, UsageBy::Total));
        assert_eq!(day.period_ms(0), (499_976 * HOUR_MS, 500_001 * HOUR_MS));
        let two = asked(Some(30 * HOUR_MS), Some(60 * HOUR_MS), Some("day"), NOW).unwrap();
        assert_eq!(two.period_ms(1), (30 * HOUR_MS, 48 * HOUR_MS));
        assert_eq!(two.period_ms(2), (48 * HOUR_MS, 60 * HOUR_MS));
        assert_eq!(asked(Some(5), Some(5), None, NOW), Err(Unfit::Backwards));
        assert_eq!(asked(None, None, Some("week"), NOW), Err(Unfit::By));
        assert_eq!(asked(Some(0), None, None, NOW), Err(Unfit::TooLong));
        assert_eq!(asked(Some(0), Some(u64::MAX), None, NOW), Err(Unfit::TooLong));
    }
}
