//! Usage: what edges report of it, and the sums that tenants read.

use super::request::{answer, body, json, number, page_size, parameter};
use super::{App, Failure};
use crate::auth::Caller;
use crate::clock::now_ms;
use crate::store::{Batch, RowKey};
use crate::usage::{Unfit, asked, counted};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use std::sync::Arc;
use verge_config::api::Page;
use verge_config::usage::{UsageAck, UsageReport};

type Answer = Result<Response, Failure>;

/// A batch is counted for the edge whose credential sent it.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    content: Body,
) -> Answer {
    let report: UsageReport = json(&body(content).await?)?;
    let now = now_ms();
    let (epoch, number) = (report.epoch.clone(), report.batch.as_ref().map(|batch| batch.number));
    let counted = app.store.read(|state| counted(report, state, now)).map_err(unfit)?;
    if counted.left_out > 0 {
        tracing::warn!(
            edge = caller.id(),
            items = counted.left_out,
            "usage of no site is left out"
        );
    }
    let batch = Batch { edge: caller.id().to_owned(), epoch, number, counted };
    let applied = app.store.count_usage(batch, now).await?;
    app.fleet.seen(caller.id(), now);
    Ok(answer(StatusCode::OK, &UsageAck { applied }))
}

pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    // What a removed site has used, its tenant may still read.
    let owned = app.store.read(|state| {
        state.sites.get(&site).is_some_and(|record| record.tenant == caller.tenant())
    });
    if !owned {
        return Err(Failure::not_found("site", &site));
    }
    let (from, to) = (number(&uri, "from")?, number(&uri, "to")?);
    let by = parameter(&uri, "by");
    let asked = asked(from, to, by.as_deref(), now_ms()).map_err(unfit)?;
    let limit = page_size(&uri)?;
    let after = match parameter(&uri, "cursor") {
        Some(text) => Some(cursor(&text).ok_or_else(no_cursor)?),
        None => None,
    };
    let mut rows = app.store.usage(&site, &asked, after.as_ref(), limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|(key, _)| written(key));
    let items = rows.into_iter().map(|(_, row)| row).collect();
    Ok(answer(StatusCode::OK, &Page { items, next }))
}

/// A cursor is the row that was told last: `period/version/handler`.
fn cursor(text: &str) -> Option<RowKey> {
    let mut parts = text.splitn(3, '/');
    let (period, version) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(RowKey { period, version, handler: parts.next()?.to_owned() })
}

fn written(key: &RowKey) -> String {
    format!("{}/{}/{}", key.period, key.version, key.handler)
}

fn no_cursor() -> Failure {
    Failure::bad_request("the parameter cursor must be one that was told as next")
}

fn unfit(why: Unfit) -> Failure {
    Failure::bad_request(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        let key = RowKey { period: 7, handler: "greet".to_owned(), version: 3 };
        assert_eq!(cursor(&written(&key)), Some(key));
        let folded = RowKey { period: 7, ..RowKey::default() };
        assert_eq!(cursor(&written(&folded)), Some(folded));
        for text in ["", "7", "7/x/greet", "7/3"] {
            assert_eq!(cursor(text), None, "{text}");
        }
    }
}
