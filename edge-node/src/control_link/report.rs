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
use verge_config::feed::{Answer, AppliedPurge, MAX_ANSWERS, Refusal, Report};

/// The longest silence towards the control plane.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The wait before a report that tells of changes of entries alone: there may be many of them, each report is
/// a commit of the control plane's, and nobody waits for it.
const LATER: Duration = Duration::from_secs(1);
/// The wait after a report that was lost.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Purges told in one report.
const PURGES_PER_REPORT: usize = 1_000;
/// Refusals told in a report: more sites than that are broken by one cause, which these show.
const REFUSALS_PER_REPORT: usize = 1_000;
/// The most bytes of a refusal's reason that are told. A report stays well below what the control plane
/// takes in one request.
const REASON_BYTES: usize = 512;
/// Purges kept for reports. Beyond it the oldest go: that they are applied still shows in the
/// applied revision, only the counts of what they matched here are lost.
const PURGES_KEPT: usize = 100_000;
/// Answers kept for reports; beyond it the oldest go, for nobody waits for them any more.
const ANSWERS_KEPT: usize = 64;

/// What is still to be told.
#[derive(Default)]
pub(super) struct Outbox {
    purges: Mutex<VecDeque<AppliedPurge>>,
    answers: Mutex<VecDeque<Answer>>,
    wake: Notify,
    later: Notify,
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

    /// Asks for a report before long.
    pub(super) fn report_later(&self) {
        self.later.notify_one();
    }

    /// Until a report is due.
    async fn due(&self) {
        let later = async {
            self.later.notified().await;
            tokio::time::sleep(LATER).await;
        };
        tokio::select! {
            () = self.wake.notified() => {}
            () = later => {}
        }
    }

    /// Adds an answer to a question, and asks for a report soon.
    pub(super) fn answer(&self, answer: Answer) {
        let mut kept = self.answers.lock();
        if kept.len() >= ANSWERS_KEPT {
            kept.pop_front();
        }
        kept.push_back(answer);
        drop(kept);
        self.wake.notify_one();
    }

    /// Drops what is of a history that ended.
    pub(super) fn clear(&self) {
        self.purges.lock().clear();
        self.answers.lock().clear();
    }

    /// The next report. Answers go out with it for good: should it be lost with its connection, the
    /// next one is asked the same questions, if they are still open.
    fn report(&self, status: &LinkStatus) -> Report {
        let mut answers = self.answers.lock();
        let told = answers.len().min(MAX_ANSWERS);
        Report {
            answers: answers.drain(..told).collect(),
            applied: status.applied(),
            purges: self.purges.lock().iter().take(PURGES_PER_REPORT).copied().collect(),
            refusals: shortened(status.refusals()),
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
        !kept.is_empty() || !self.answers.lock().is_empty()
    }

    #[cfg(test)]
    pub(super) fn waiting_answers(&self) -> Vec<Answer> {
        self.answers.lock().iter().cloned().collect()
    }
}

/// Refusals as a report has them.
fn shortened(mut refusals: Vec<Refusal>) -> Vec<Refusal> {
    refusals.truncate(REFUSALS_PER_REPORT);
    for Refusal { reason, .. } in &mut refusals {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
    }
    refusals
}

/// Sends reports for ever, whenever there is something to tell and the control plane can be reached.
pub(super) async fn run(session: Arc<Session>, outbox: Arc<Outbox>, status: Arc<LinkStatus>) {
    loop {
        let _ = tokio::time::timeout(REPORT_EVERY, outbox.due()).await;
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
    use verge_config::feed::Told;

    fn purge(revision: u64) -> AppliedPurge {
        AppliedPurge { revision: Revision(revision), matched: 1, took_us: 1 }
    }

    #[test]
    fn a_report_stays_small_however_much_is_refused() {
        let refusal = |n: usize| Refusal {
            revision: Revision(1),
            site: format!("{n:063}"),
            reason: "ü\"".repeat(100_000),
        };
        let told = shortened((0..20_000).map(refusal).collect());
        assert_eq!(told.len(), REFUSALS_PER_REPORT);
        assert!(serde_json::to_vec(&told).unwrap().len() < 1024 * 1024);
        let short = Refusal { reason: "no origin".into(), ..refusal(1) };
        assert_eq!(shortened(vec![short.clone()]), [short]);
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
    fn answers_are_told_once_and_a_few_at_a_time() {
        let (outbox, status) = (Outbox::default(), LinkStatus::default());
        for n in 0..ANSWERS_KEPT + 2 {
            outbox.answer(Answer { id: n.to_string(), told: Told::Unknown });
        }
        let first = outbox.report(&status);
        let ids: Vec<_> = first.answers.iter().map(|answer| answer.id.as_str()).collect();
        assert_eq!(ids, ["2", "3", "4", "5", "6", "7", "8", "9"]);
        assert!(outbox.answered(&first), "more are waiting");
        let mut rest = 0;
        while let told @ 1.. = outbox.report(&status).answers.len() {
            rest += told;
        }
        assert_eq!(rest, ANSWERS_KEPT - MAX_ANSWERS);
        assert!(!outbox.answered(&first));
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

    #[tokio::test(start_paused = true)]
    async fn changes_of_entries_are_reported_together() {
        let outbox = Outbox::default();
        let began = tokio::time::Instant::now();
        for _ in 0..3 {
            outbox.report_later();
        }
        outbox.due().await;
        assert_eq!(began.elapsed(), LATER);
        outbox.report_later();
        outbox.push(vec![purge(1)]);
        outbox.due().await;
        assert_eq!(began.elapsed(), LATER, "a purge does not wait");
    }
}
