//! What the edge tells its control plane of itself: gathered while lines are applied, sent soon after
//! and at least every ten seconds, kept until it was answered.

use super::session::{Session, VERSION};
use super::status::LinkStatus;
use http::Method;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use verge_config::feed::{AppliedPurge, Report};

/// The longest silence towards the control plane.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The wait after a report that was lost.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Purges told in one report.
const PURGES_PER_REPORT: usize = 1_000;
/// Purges kept for reports. Beyond it the oldest go: that they are applied still shows in the
/// applied revision, only the counts of what they matched here are lost.
const PURGES_KEPT: usize = 100_000;

/// What is still to be told.
#[derive(Default)]
pub(super) struct Outbox {
    purges: Mutex<VecDeque<AppliedPurge>>,
    wake: Notify,
}

// === impl Outbox ===

impl Outbox {
    /// Adds purges that are in force, and asks for a report soon.
    pub(super) fn push(&self, purges: Vec<AppliedPurge>) {
        let mut kept = self.purges.lock();
        kept.extend(purges);
        let excess = kept.len().saturating_sub(PURGES_KEPT);
        kept.drain(..excess);
        drop(kept);
        self.wake.notify_one();
    }

    /// Drops what is of a history that ended.
    pub(super) fn clear(&self) {
        self.purges.lock().clear();
    }

    fn report(&self, status: &LinkStatus) -> Report {
        Report {
            applied: status.applied(),
            purges: self.purges.lock().iter().take(PURGES_PER_REPORT).copied().collect(),
            refusals: status.refusals(),
            version: VERSION.to_owned(),
        }
    }

    /// Takes out what a report told; says whether more is waiting.
    fn answered(&self, report: &Report) -> bool {
        let mut kept = self.purges.lock();
        for told in &report.purges {
            // What was pushed out by newer ones in the meantime is not the first any more.
            if kept.front() == Some(told) {
                kept.pop_front();
            }
        }
        !kept.is_empty()
    }
}

/// Sends reports for ever, whenever there is something to tell and the control plane can be reached.
pub(super) async fn run(session: Arc<Session>, outbox: Arc<Outbox>, status: Arc<LinkStatus>) {
    loop {
        let _ = tokio::time::timeout(REPORT_EVERY, outbox.wake.notified()).await;
        while status.is_connected() {
            let report = outbox.report(&status);
            match send(&session, &report).await {
                Ok(()) => {
                    if !outbox.answered(&report) {
                        break;
                    }
                }
                Err(reason) => {
                    tracing::warn!(reason, "report lost; it is sent again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}

async fn send(session: &Session, report: &Report) -> Result<(), String> {
    let body = serde_json::to_vec(report).map_err(|error| error.to_string())?;
    let sent = session.send(Method::POST, "/v1/edges/self/reports", Some(body.into())).await;
    sent.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use verge_config::Revision;

    fn purge(revision: u64) -> AppliedPurge {
        AppliedPurge { revision: Revision(revision), matched: 1, took_us: 1 }
    }

    #[test]
    fn purges_stay_until_they_are_answered() {
        let (outbox, status) = (Outbox::default(), LinkStatus::default());
        outbox.push((0..1_500).map(purge).collect());
        let first = outbox.report(&status);
        assert_eq!(first.purges.len(), PURGES_PER_REPORT);
        assert_eq!(outbox.report(&status), first, "a lost report is told again");
        outbox.push(vec![purge(1_500)]);
        assert!(outbox.answered(&first));
        let second = outbox.report(&status);
        assert_eq!(second.purges.first().unwrap().revision, Revision(1_000));
        assert_eq!(second.purges.len(), 501);
        assert!(!outbox.answered(&second));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (outbox, status) = (Outbox::default(), LinkStatus::default());
        outbox.push((0..PURGES_KEPT as u64).map(purge).collect());
        let told = outbox.report(&status);
        outbox.push((0..10).map(|n| purge(PURGES_KEPT as u64 + n)).collect());
        assert_eq!(outbox.purges.lock().len(), PURGES_KEPT);
        assert!(outbox.answered(&told));
        assert!(outbox.purges.lock().iter().any(|kept| kept.revision.0 == PURGES_KEPT as u64 + 9));
    }
}
