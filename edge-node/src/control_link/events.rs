//! Sends what is told of requests that somebody watches, a batch of each tail at a time and not more often
//! than five times a second. What does not get through is counted, not sent again: who watches wants to
//! see now.

use super::client::ClientError;
use super::session::{Session, SessionError, collect};
use super::status::LinkStatus;
use crate::tail::Tails;
use http::Method;
use std::sync::Arc;
use std::time::Duration;
use verge_config::tail::{BATCH_EVERY_MS, Batch, Taken};

const BATCH_EVERY: Duration = Duration::from_millis(BATCH_EVERY_MS);
/// The longest answer to a batch.
const ANSWER_MAX: usize = 4096;
/// How long an answer's content may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends batches for ever; without anybody to be told of, waits for ever.
pub(super) async fn run(session: Arc<Session>, tails: Option<Arc<Tails>>, status: Arc<LinkStatus>) {
    let Some(tails) = tails else { return std::future::pending().await };
    loop {
        if !tails.has_more() {
            tails.due().await;
        }
        if status.is_connected() {
            for batch in tails.batches() {
                match send(&session, &batch).await {
                    Ok(Taken { open: true }) => {}
                    Ok(Taken { open: false }) => tails.close(&batch.tail),
                    Err(error) => {
                        tracing::debug!(%error, "events lost; they are counted");
                        tails.lost(&batch);
                    }
                }
            }
        }
        tokio::time::sleep(BATCH_EVERY).await;
    }
}

async fn send(session: &Session, batch: &Batch) -> Result<Taken, SessionError> {
    let malformed = |error: serde_json::Error| ClientError::Malformed(error.to_string());
    let body = serde_json::to_vec(batch).map_err(malformed)?;
    let sent = session.send(Method::POST, "/v1/edges/self/events", Some(body.into())).await?;
    let answer = collect(sent, ANSWER_MAX, ANSWER_TIMEOUT).await?;
    Ok(serde_json::from_slice(&answer).map_err(malformed)?)
}
