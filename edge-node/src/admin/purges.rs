//! The receipts of a standalone edge's purges: the last ones, in memory.

use super::PurgeDone;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use verge_config::PurgeRequest;
use verge_config::api::{EdgePurgeState, EdgeReceipt, Receipt};

/// The most receipts kept; the oldest go first.
const MAX_RECEIPTS: usize = 1000;

/// The last receipts.
#[derive(Default)]
pub(super) struct Receipts(Mutex<VecDeque<Receipt>>);

impl Receipts {
    /// Keeps a receipt.
    pub(super) fn keep(&self, receipt: Receipt) {
        let mut receipts = self.0.lock();
        if receipts.len() >= MAX_RECEIPTS {
            receipts.pop_front();
        }
        receipts.push_back(receipt);
    }

    /// The receipt of a purge, when it is among the last.
    pub(super) fn find(&self, id: &str) -> Option<Receipt> {
        self.0.lock().iter().rev().find(|receipt| receipt.id == id).cloned()
    }
}

/// The receipt of a purge in force on its only edge, or of one that was only counted there.
pub(super) fn receipt(
    request: PurgeRequest,
    done: PurgeDone,
    edge: String,
    asked: SystemTime,
    took: Duration,
) -> Receipt {
    let latency = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let mut notes = Vec::new();
    if done.matched == 0 {
        notes.push(if request.dry_run {
            "matches nothing that is stored now".to_owned()
        } else {
            "nothing that is stored now matched".to_owned()
        });
    }
    let (prefix, state, latency) = if request.dry_run {
        ("d", EdgePurgeState::Counted, None)
    } else {
        ("p", EdgePurgeState::Applied, Some(latency))
    };
    Receipt {
        id: format!("{prefix}{:016x}", rand::random::<u64>()),
        site: done.site,
        revision: done.revision,
        mode: request.mode,
        selectors: request.selectors,
        created_ms: asked
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        created_by: "admin listener".to_owned(),
        complete: true,
        applied: 1,
        pending: 0,
        offline: 0,
        matched: done.matched,
        p50_ms: latency,
        p99_ms: latency,
        notes,
        dry_run: request.dry_run,
        edges: vec![EdgeReceipt {
            edge,
            state,
            latency_ms: latency,
            matched: Some(done.matched),
            samples: done.samples,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::Revision;

    #[test]
    fn the_oldest_receipts_go_first() {
        let receipts = Receipts::default();
        let ids: Vec<String> = (0..=MAX_RECEIPTS)
            .map(|_| {
                let request = PurgeRequest {
                    site: None,
                    selectors: vec![],
                    mode: Default::default(),
                    dry_run: false,
                };
                let (site, revision) = ("s".into(), Revision(1));
                let done = PurgeDone { site, revision, matched: 0, samples: vec![] };
                let made = receipt(request, done, "e".into(), UNIX_EPOCH, Duration::ZERO);
                let id = made.id.clone();
                receipts.keep(made);
                id
            })
            .collect();
        assert!(receipts.find(&ids[0]).is_none());
        assert!(receipts.find(&ids[1]).is_some());
        assert!(receipts.find(&ids[MAX_RECEIPTS]).is_some());
    }
}
