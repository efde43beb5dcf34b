//! The receipt of a dry run, from what the edges have answered. Pure; nothing of it is kept.

use crate::fleet::{self, Fleet};
use crate::state::State;
use std::collections::HashMap;
use verge_config::PurgeRequest;
use verge_config::api::{EdgePurgeState, EdgeReceipt, Receipt};
use verge_config::feed::{MAX_SAMPLE_BYTES, MAX_SAMPLES, Told};

/// The most notes on single edges.
const MAX_NOTES: usize = 20;

/// What was asked, by whom and when.
pub(crate) struct DryRun<'a> {
    pub(crate) id: &'a str,
    pub(crate) request: &'a PurgeRequest,
    pub(crate) by: &'a str,
    pub(crate) asked_ms: u64,
}

/// The receipt: every enrolled edge with what it has answered.
pub(crate) fn receipt(
    state: &State,
    fleet: &Fleet,
    run: &DryRun<'_>,
    mut answers: HashMap<String, Told>,
) -> Receipt {
    let enrolled = state.edges.values().filter(|edge| edge.removed.is_none());
    let mut notes = Vec::new();
    let mut edges: Vec<EdgeReceipt> = enrolled
        .map(|edge| {
            let told = answers.remove(&edge.id);
            if let Some(Told::Refused { reason }) = &told {
                notes.push(format!("edge {} does not answer: {reason}", edge.name));
            }
            part(&edge.name, fleet.is_connected(&edge.id), told)
        })
        .collect();
    edges.sort_by(|a, b| a.edge.cmp(&b.edge));
    notes.sort();
    notes.truncate(MAX_NOTES);
    let site = run.request.site.clone().unwrap_or_default();
    notes.extend(summary(&edges));
    notes.extend(fleet::foreign_hosts(state, &site, &run.request.selectors));
    let count = |state| edges.iter().filter(|edge| edge.state == state).count() as u64;
    let counted = count(EdgePurgeState::Counted);
    Receipt {
        id: run.id.to_owned(),
        site,
        revision: state.revision,
        mode: run.request.mode,
        selectors: run.request.selectors.clone(),
        created_ms: run.asked_ms,
        created_by: run.by.to_owned(),
        complete: counted == edges.len() as u64,
        applied: counted,
        pending: count(EdgePurgeState::Pending),
        offline: count(EdgePurgeState::Offline),
        matched: edges.iter().filter_map(|edge| edge.matched).sum(),
        p50_ms: None,
        p99_ms: None,
        notes,
        dry_run: true,
        edges,
    }
}

fn part(edge: &str, connected: bool, told: Option<Told>) -> EdgeReceipt {
    let away = if connected { EdgePurgeState::Pending } else { EdgePurgeState::Offline };
    let (state, matched, mut samples) = match told {
        Some(Told::Preview { matched, samples }) => {
            (EdgePurgeState::Counted, Some(matched), samples)
        }
        _ => (away, None, Vec::new()),
    };
    samples.truncate(MAX_SAMPLES);
    samples.retain(|sample| sample.len() <= MAX_SAMPLE_BYTES);
    EdgeReceipt { edge: edge.to_owned(), state, latency_ms: None, matched, samples }
}

/// What an admin should know of the edges together.
fn summary(edges: &[EdgeReceipt]) -> Vec<String> {
    let mut notes = Vec::new();
    if edges.is_empty() {
        notes.push("no edge is enrolled".to_owned());
    }
    let counted: Vec<u64> = edges.iter().filter_map(|edge| edge.matched).collect();
    if !counted.is_empty() && counted.iter().all(|matched| *matched == 0) {
        notes.push(if counted.len() == edges.len() {
            "matches nothing on any edge".to_owned()
        } else {
            "matches nothing on the edges that have answered".to_owned()
        });
    }
    for (state, why) in [
        (EdgePurgeState::Offline, "offline and not counted; the purge itself would reach it"),
        (EdgePurgeState::Pending, "connected and has not answered"),
    ] {
        let silent = edges.iter().filter(|edge| edge.state == state);
        for edge in silent.clone().take(MAX_NOTES) {
            notes.push(format!("edge {} is {why}", edge.edge));
        }
        let more = silent.count().saturating_sub(MAX_NOTES);
        if more > 0 {
            notes.push(format!("{more} more edges are {why}"));
        }
    }
    notes
}
