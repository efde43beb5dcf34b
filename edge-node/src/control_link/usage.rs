//! Writes down what handlers have used, and reports it: every few seconds to the disk, then from there
//! to the control plane, until it is acknowledged. A killed edge loses what it has not written down
//! since the last time; nothing is counted twice. What is kept, and when it may be sent, is the
//! ledger's to say.

mod ledger;

pub(super) use ledger::Ledger;

use super::last_good::LastGood;
use super::session::{Session, collect};
use super::status::LinkStatus;
use crate::handlers::{UsageBook, Used};
use crate::telemetry;
use http::Method;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use verge_config::usage::{HOUR_MS, UsageAck, UsageItem, UsageReport};

/// The longest answer.
const ANSWER_MAX: usize = 64 * 1024;
/// How long an answer's content may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last report may take once the edge stops; what is left is sent at the next start.
const LAST_REPORT: Duration = Duration::from_secs(2);
/// Batches sent one after the other; the rest wait for the next time.
const BATCHES_AT_A_TIME: usize = 64;

/// Writes usage down and reports it.
pub struct UsageReporter {
    session: Arc<Session>,
    status: Arc<LinkStatus>,
    kept: Arc<LastGood>,
    book: Arc<UsageBook>,
    every: Duration,
    ledger: Ledger,
    /// The ledger is on disk as it is.
    is_saved: bool,
    /// The hour in which what is in the book was used.
    hour: u64,
    /// The last report did not get through, and that was told.
    is_failing: bool,
}

// === impl UsageReporter ===

impl UsageReporter {
    pub(super) fn new(
        session: Arc<Session>,
        status: Arc<LinkStatus>,
        kept: Arc<LastGood>,
        book: Arc<UsageBook>,
        every: Duration,
    ) -> UsageReporter {
        let ledger = kept.usage().unwrap_or_else(|| Ledger::new(new_epoch()));
        UsageReporter {
            session,
            status,
            kept,
            book,
            every,
            ledger,
            is_saved: true,
            hour: now_ms() / HOUR_MS,
            is_failing: false,
        }
    }

    /// Works until `ended`: the last request has ended then, and what it used is written down, too.
    pub async fn run(mut self, ended: CancellationToken) {
        while !ended.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(self.pause(now_ms())) => {}
                () = ended.cancelled() => {}
            }
            self.cut().await;
            if !ended.is_cancelled() {
                self.report(&ended).await;
            }
        }
        // Nobody stops this one but the clock.
        let late = CancellationToken::new();
        let _ = tokio::time::timeout(LAST_REPORT, self.report(&late)).await;
    }

    /// Until the next cut: at the end of an hour in any case, so that usage stays in its hour.
    fn pause(&self, now_ms: u64) -> Duration {
        let left = HOUR_MS - now_ms % HOUR_MS;
        self.every.min(Duration::from_millis(left))
    }

    /// Takes out of the book what was used since the last time, and writes it down.
    async fn cut(&mut self) {
        let used = self.book.take();
        let hour = std::mem::replace(&mut self.hour, now_ms() / HOUR_MS);
        if !used.is_empty() {
            self.ledger.add(used.into_iter().map(|used| item(used, hour)));
            self.is_saved = false;
        }
        self.is_saved &= !self.ledger.seal();
        self.save().await;
    }

    /// Writes the ledger down; what cannot be written now is written the next time. Not to be given up
    /// in the middle: two writes at a time would meet in one file.
    async fn save(&mut self) {
        if self.is_saved {
            return;
        }
        let (kept, ledger) = (Arc::clone(&self.kept), self.ledger.clone());
        let saved = tokio::task::spawn_blocking(move || kept.save_usage(&ledger)).await;
        match saved.map_err(|error| error.to_string()).and_then(|r| r.map_err(|e| e.to_string())) {
            Ok(()) => self.is_saved = true,
            Err(error) => tracing::error!(
                error,
                "what handlers have used cannot be written down; a restart would lose it"
            ),
        }
    }

    /// Sends what is to be sent, one batch after the other.
    async fn report(&mut self, ended: &CancellationToken) {
        for _ in 0..BATCHES_AT_A_TIME {
            // What is not on disk under its number might be told again under another one.
            if !self.is_saved || !self.status.is_connected() {
                return;
            }
            let Some(report) = self.ledger.report() else { return };
            let answer = tokio::select! {
                answer = send(&self.session, &report) => answer,
                () = ended.cancelled() => return,
            };
            match answer {
                Ok(ack) => {
                    self.is_failing = false;
                    if !self.ledger.acknowledged(&report, ack.applied, new_epoch) {
                        tracing::warn!(
                            applied = ack.applied,
                            "the control plane has counted more of this edge's usage than the edge \
                             knows of: its state folder is a copy, or an old one; it counts anew"
                        );
                    }
                    self.is_saved = false;
                    self.ledger.seal();
                    self.save().await;
                }
                Err(reason) => {
                    telemetry::metrics().usage_unsent.inc();
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(reason, "usage is not reported; it is kept and sent again");
                    }
                    return;
                }
            }
        }
    }
}

fn item(used: Used, hour: u64) -> UsageItem {
    let Used { site, handler, version, sums } = used;
    UsageItem { site: site.to_string(), handler: handler.to_string(), version, hour, sums }
}

async fn send(session: &Session, report: &UsageReport) -> Result<UsageAck, String> {
    let body = serde_json::to_vec(report).map_err(|error| error.to_string())?;
    let sent = session.send(Method::POST, "/v1/edges/self/usage", Some(body.into())).await;
    let response = sent.map_err(|error| error.to_string())?;
    let answer = collect(response, ANSWER_MAX, BODY_TIMEOUT).await;
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}

/// A random epoch: two never meet.
fn new_epoch() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
