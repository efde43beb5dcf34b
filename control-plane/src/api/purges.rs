//! Purges and their receipts.

use super::request::{answer, body, idempotency, json, number, page_size, parameter, with};
use super::{App, Failure};
use crate::auth::{Caller, random_id};
use crate::clock::now_ms;
use crate::fleet::{self, Wait};
use crate::state::{Command, Outcome};
use crate::store::PurgeRow;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};
use verge_config::api::{Page, Receipt};
use verge_config::{Faults, PurgeRequest, Revision, units};

type Answer = Result<Response, Failure>;

/// The longest wait that can be asked for.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(300);
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// Reports wake whoever waits; this is in case one is missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    (method, uri, fields): (Method, Uri, HeaderMap),
    content: Body,
) -> Answer {
    let bytes = body(content).await?;
    let wait = wait_of(&uri)?;
    let request: PurgeRequest = json(&bytes)?;
    let mut faults = request.validate().err().unwrap_or_default();
    if request.site.is_none() {
        faults.add("site", "is missing: the site to purge");
    }
    faults.or(()).map_err(|faults| Failure::faults("invalid-purge", faults))?;
    let key = idempotency(&fields, &method, &uri, &bytes)?;
    app.purge_rate.take(caller.tenant().to_owned(), Instant::now()).map_err(|wait| {
        Failure::too_many("this tenant purges faster than its limit allows", wait)
    })?;
    if request.dry_run {
        return super::questions::dry_run(&app, &caller, &uri, &request).await;
    }
    let site = request.site.clone().unwrap_or_default();
    let command = Command::Purge { id: random_id("prg")?, site, request };
    let committed = app.store.commit(caller.actor(), key, command, now_ms()).await?;
    let Outcome::Purge { id } = committed.outcome else { return Err(super::problem::mixed_up()) };
    let row = find(&app, &caller, &id).await?;
    app.metrics.purge();
    app.metrics.head(row.purge.revision);
    let over = waited(&app, wait, row.purge.revision).await;
    let receipt = receipt(&app, &row).await?;
    let status = if receipt.complete || (over && wait.0 == Wait::Quorum) {
        StatusCode::CREATED
    } else {
        StatusCode::ACCEPTED
    };
    Ok(with(answer(status, &receipt), header::LOCATION, format!("/v1/purges/{id}")))
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Answer {
    let row = find(&app, &caller, &id).await?;
    waited(&app, wait_of(&uri)?, row.purge.revision).await;
    Ok(answer(StatusCode::OK, &receipt(&app, &row).await?))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Answer {
    let (limit, site) = (page_size(&uri)?, parameter(&uri, "site"));
    let before = number(&uri, "cursor")?.unwrap_or(i64::MAX as u64);
    if let Some(name) = &site {
        // The receipts of a removed site are still its owner's.
        let own = app
            .store
            .read(|state| state.sites.get(name).is_some_and(|site| site.tenant == caller.tenant()));
        if !own {
            return Err(Failure::not_found("site", name));
        }
    }
    let mut rows = app.store.purges(caller.tenant(), site.as_deref(), before, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().map(|row| row.purge.revision.to_string());
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(receipt(&app, row).await?);
    }
    let next = if more { last } else { None };
    Ok(answer(StatusCode::OK, &Page { items, next }))
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<PurgeRow, Failure> {
    let row = app.store.purge(id).await?.filter(|row| row.tenant == caller.tenant());
    row.ok_or_else(|| Failure::not_found("purge", id))
}

async fn receipt(app: &App, row: &PurgeRow) -> Result<Receipt, Failure> {
    let rows = app.store.receipts(row.purge.revision).await?;
    Ok(app.store.read(|state| fleet::receipt(state, &app.fleet, row, &rows)))
}

pub(super) fn wait_of(uri: &Uri) -> Result<(Wait, Duration), Failure> {
    let mut faults = Faults::default();
    let wait = match parameter(uri, "wait").as_deref() {
        None | Some("none") => Wait::None,
        Some("all" | "") => Wait::All,
        Some("quorum") => Wait::Quorum,
        Some(_) => {
            faults.add("wait", "must be all, quorum or none");
            Wait::None
        }
    };
    let timeout = match parameter(uri, "timeout").as_deref().map(units::parse_duration) {
        None => DEFAULT_WAIT,
        Some(Ok(timeout)) if timeout <= MAX_WAIT => timeout,
        Some(Ok(_)) => {
            faults.add("timeout", format!("at most {}", units::write_duration(MAX_WAIT)));
            DEFAULT_WAIT
        }
        Some(Err(message)) => {
            faults.add("timeout", message);
            DEFAULT_WAIT
        }
    };
    faults.or((wait, timeout)).map_err(|faults| Failure::bad_request(faults.to_string()))
}

/// Waits as asked; says whether it is over, rather than timed out.
async fn waited(app: &App, (wait, timeout): (Wait, Duration), revision: Revision) -> bool {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut changes = app.fleet.watch();
    loop {
        changes.borrow_and_update();
        if app.store.read(|state| wait.is_over(state, revision)) {
            return true;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = app.shutdown.cancelled() => return false,
            () = tokio::time::sleep_until(deadline) => {
                return app.store.read(|state| wait.is_over(state, revision));
            }
        }
    }
}
