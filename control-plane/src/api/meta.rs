//! The endpoints about the control plane itself: health, metrics, its description, the audit log.

use super::request::{answer, number, page_size};
use super::{App, Failure};
use crate::auth::Caller;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use verge_config::api::Page;

type Answer = Result<Response, Failure>;

pub(super) async fn health() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> Answer {
    if app.shutdown.is_cancelled() || !app.store.ready().await {
        return Err(Failure::unavailable("not ready"));
    }
    Ok("ok\n".into_response())
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Answer {
    app.metrics.head(app.store.read(|state| state.revision));
    app.metrics.connected_edges(app.fleet.connected());
    let mut response = Response::new(Body::from(app.metrics.text()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}

pub(super) async fn openapi(State(app): State<Arc<App>>) -> Response {
    let mut response = Response::new(Body::from(app.openapi.clone()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

pub(super) async fn audit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Answer {
    let (limit, before) = (page_size(&uri)?, number(&uri, "cursor")?.unwrap_or(i64::MAX as u64));
    let tenant = if caller.is_operator() { None } else { Some(caller.tenant()) };
    let mut items = app.store.audit(tenant, before, limit + 1).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(|row| row.id.to_string()) } else { None };
    Ok(answer(StatusCode::OK, &Page { items, next }))
}
