//! Live tails: the stream to whoever reads, and the batches of the edges.

use super::request::{answer, answer_lines, body, json, parameter, parameters};
use super::{App, Failure};
use crate::auth::Caller;
use crate::clock::now_ms;
use crate::tails::{Open, encode};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use verge_config::tail::{
    ALIVE_SECONDS, Batch, Filter, MAX_EDGES, MAX_NAME_BYTES, MAX_PATH_BYTES, RENEW_SECONDS,
    TailLine, Taken, WHOLE,
};

type Answer = Result<Response, Failure>;

/// Chunks on their way to one reader.
const BUFFER: usize = 4;
/// A reader that takes nothing for so long is cut off.
const STALLED: Duration = Duration::from_secs(60);
const ALIVE: Duration = Duration::from_secs(ALIVE_SECONDS);
const RENEW: Duration = Duration::from_secs(RENEW_SECONDS);

/// One open tail with its reader.
struct Stream {
    app: Arc<App>,
    caller: Caller,
    site: String,
    open: Open,
    lines: mpsc::Sender<Bytes>,
    /// Edges whose refusal was told.
    refused: BTreeSet<String>,
    renewed: Instant,
    /// When the reader was last seen to take something.
    took: Instant,
}

pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    let filter = filter(&uri)?;
    let edges = app.store.read(|state| {
        state.site(caller.tenant(), &site)?;
        let connected = state.edges.values().filter(|edge| app.fleet.is_connected(&edge.id));
        let mut names: Vec<String> = connected.map(|edge| edge.name.clone()).collect();
        names.retain(|name| filter.names(name));
        names.sort();
        Some(names)
    });
    let edges = edges.ok_or_else(|| Failure::not_found("site", &site))?;
    let open = app.tails.open(&app.questions, caller.tenant(), &site, filter)?;
    let (lines, receiver) = mpsc::channel(BUFFER);
    let _ = lines.try_send(encode(&TailLine::Open { site: site.clone(), edges }));
    tracing::info!(site, caller = caller.id(), "tail opened");
    let now = Instant::now();
    let refused = BTreeSet::new();
    let stream = Stream { app, caller, site, open, lines, refused, renewed: now, took: now };
    tokio::spawn(stream.run());
    Ok(answer_lines(receiver))
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    content: Body,
) -> Answer {
    let batch: Batch = json(&body(content).await?)?;
    let open = app.tails.take(&caller.actor().name, batch);
    Ok(answer(StatusCode::OK, &Taken { open }))
}

/// The filter that the query writes.
fn filter(uri: &Uri) -> Result<Filter, Failure> {
    let text = |name: &str, limit: usize| match parameter(uri, name) {
        Some(text) if text.len() > limit => {
            Err(Failure::bad_request(format!("{name} is longer than {limit} bytes")))
        }
        other => Ok(other),
    };
    let statuses = text("status", MAX_NAME_BYTES)?.map(|text| text.parse()).transpose();
    let edges = parameters(uri, "edge");
    if edges.len() > MAX_EDGES || edges.iter().any(|edge| edge.len() > MAX_NAME_BYTES) {
        return Err(Failure::bad_request(format!("more than {MAX_EDGES} edges, or a long name")));
    }
    Ok(Filter {
        handler: text("handler", MAX_NAME_BYTES)?,
        status: statuses.map_err(Failure::bad_request)?,
        outcome: text("outcome", MAX_NAME_BYTES)?,
        path: text("path", MAX_PATH_BYTES)?,
        edges,
        sample: text("sample", MAX_NAME_BYTES)?.map_or(Ok(WHOLE), |text| sample(&text))?,
        query: parameter(uri, "query").as_deref() == Some("true"),
    })
}

/// A part between 0 and 1 as parts per million.
fn sample(text: &str) -> Result<u32, Failure> {
    let part: Option<f64> = text.parse().ok().filter(|part| *part > 0.0 && *part <= 1.0);
    let part = part.ok_or_else(|| Failure::bad_request("sample is a part above 0, up to 1"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=1")]
    let millionths = (part * f64::from(WHOLE)).ceil() as u32;
    Ok(millionths)
}

// === impl Stream ===

impl Stream {
    async fn run(mut self) {
        let shutdown = self.app.shutdown.clone();
        let mut tick = tokio::time::interval(ALIVE);
        tick.reset();
        loop {
            tokio::select! {
                () = self.lines.closed() => break,
                () = shutdown.cancelled() => break,
                sent = self.forward() => match sent {
                    Ok(()) => self.took = Instant::now(),
                    Err(_) => break,
                },
                _ = tick.tick() => if !self.tick() { break },
            }
        }
        tracing::info!(site = self.site, caller = self.caller.id(), "tail closed");
    }

    /// Hands the next lines on once there is room for them: what waits until then is bounded, and what
    /// goes beyond that is counted.
    async fn forward(&self) -> Result<(), mpsc::error::SendError<()>> {
        let room = self.lines.reserve().await?;
        room.send(self.open.next().await);
        Ok(())
    }

    /// What is to be done from time to time; whether the tail goes on.
    fn tick(&mut self) -> bool {
        if self.lines.capacity() > 0 {
            self.took = Instant::now();
        }
        if self.took.elapsed() >= STALLED || !self.may_go_on() {
            return false;
        }
        if self.renewed.elapsed() >= RENEW.saturating_sub(ALIVE / 2) {
            self.renewed = Instant::now();
            self.open.renew();
        }
        let mut text = Vec::new();
        for (id, reason) in self.open.refusals() {
            if self.refused.insert(id.clone()) {
                let name =
                    self.app.store.read(|state| state.edges.get(&id).map(|e| e.name.clone()));
                let line = TailLine::Refused { edge: name.unwrap_or(id), reason };
                text.extend_from_slice(&encode(&line));
            }
        }
        text.extend_from_slice(&encode(&TailLine::Alive));
        // A reader that has not taken the last lines is in no doubt about the connection.
        let _ = self.lines.try_send(text.into());
        true
    }

    /// The site is still there, and so is the token.
    fn may_go_on(&self) -> bool {
        self.app.store.read(|state| {
            let token = state.token_by_id(self.caller.id());
            let alive = token.is_some_and(|(_, t)| t.expires_ms.is_none_or(|end| end > now_ms()));
            alive && state.site(self.caller.tenant(), &self.site).is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verge_config::tail::Statuses;

    fn of(query: &str) -> Result<Filter, Failure> {
        filter(&format!("/v1/sites/shop/tail?{query}").parse().unwrap())
    }

    #[test]
    fn a_filter_is_read_whole_or_refused() {
        assert_eq!(of("").unwrap(), Filter::default());
        let read = of(
            "handler=h&status=5xx&outcome=trapped&path=%2Fapi&edge=a&edge=b&sample=0.1&query=true",
        );
        let expected = Filter {
            handler: Some("h".into()),
            status: Some(Statuses::Class(5)),
            outcome: Some("trapped".into()),
            path: Some("/api".into()),
            edges: vec!["a".into(), "b".into()],
            sample: 100_000,
            query: true,
        };
        assert_eq!(read.unwrap(), expected);
        for wrong in ["status=6xx", "sample=0", "sample=1.1", "sample=NaN", "sample=x"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert!(of(&format!("path={}", "x".repeat(MAX_PATH_BYTES + 1))).is_err());
        assert!(of(&"edge=a&".repeat(MAX_EDGES + 1)).is_err());
    }
}
