//! What the admin listener answers, path by path.

use super::problem::Refusal;
use super::purge_body::{self, BodyError};
use super::purges::{self, Receipts};
use super::{AdminHooks, PurgeRefused, Readiness, guard};
use crate::telemetry;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The largest body: the most selectors of the greatest length, as JSON.
const MAX_BODY_BYTES: usize = 9 * 1024 * 1024;

/// How long a request may take, its body included.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Admin {
    hooks: Arc<dyn AdminHooks>,
    receipts: Arc<Receipts>,
}

/// The query's parameters in their order: `url`, and `field=name:value` for each field.
type ExplainQuery = Vec<(String, String)>;

/// All paths of the listener.
pub(super) fn router(hooks: Arc<dyn AdminHooks>) -> Router {
    let admin = Admin { hooks, receipts: Arc::default() };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/explain", get(explain))
        .route("/purges", post(purge))
        .route("/purges/{id}", get(receipt))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(guarded))
        .with_state(admin)
}

/// What holds for every path: asked for by this machine's name, not too large, not for ever.
async fn guarded(request: Request, next: Next) -> Response {
    if !guard::is_own_host(request.uri().authority(), request.headers()) {
        let title = "Not this machine's name";
        let detail = "ask by address or as localhost";
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Refusal::new(status, "foreign-host", title, detail).into_response();
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length: Option<usize> = length.and_then(|value| value.parse().ok());
    if length.is_some_and(|length| length > MAX_BODY_BYTES) {
        let detail = format!("at most {MAX_BODY_BYTES} bytes");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Refusal::new(status, "body-too-large", "Too large", detail).into_response();
    }
    let Ok(mut response) = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await else {
        let detail = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
        let status = StatusCode::REQUEST_TIMEOUT;
        return Refusal::new(status, "timeout", "Too slow", detail).into_response();
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.hooks.readiness() {
        Readiness::Ready { revision } => {
            Json(json!({ "status": "ready", "revision": revision })).into_response()
        }
        Readiness::NotReady(why) => {
            let title = "Not ready for visitors";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", title, why).into_response()
        }
    }
}

async fn metrics() -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], telemetry::metrics().render()).into_response()
}

async fn explain(
    State(admin): State<Admin>,
    query: Result<Query<ExplainQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let refuse = |detail: &str| {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid-url", "Nothing to explain", detail)
    };
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let url = query.iter().find(|(name, _)| name == "url").map(|(_, url)| url);
    let url =
        url.ok_or_else(|| refuse("say which URL: /explain?url=https%3A%2F%2Fshop.example%2F"))?;
    let fields: Option<Vec<(String, String)>> = query
        .iter()
        .filter(|(name, _)| name == "field")
        .map(|(_, text)| text.split_once(':').map(|(n, v)| (n.trim().into(), v.trim().into())))
        .collect();
    let fields = fields
        .ok_or_else(|| refuse("a field is written name:value, as in field=accept-encoding:br"))?;
    let explained = admin.hooks.explain(url, &fields).map_err(|why| refuse(&why))?;
    Ok(Json(explained).into_response())
}

async fn purge(
    State(admin): State<Admin>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    if !guard::is_json(&headers) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Not JSON",
            "send Content-Type: application/json",
        ));
    }
    let body = body.map_err(|rejected| {
        let (kind, title) = ("unreadable-body", "The body cannot be read");
        Refusal::new(rejected.status(), kind, title, rejected.body_text())
    })?;
    let request = purge_body::parse(&body).map_err(|error| match error {
        BodyError::NotJson(why) => {
            Refusal::new(StatusCode::BAD_REQUEST, "malformed-json", "Not JSON", why)
        }
        BodyError::Invalid(faults) => {
            Refusal::invalid("invalid-purge", "The purge is not valid", faults)
        }
    })?;
    let (asked, began) = (SystemTime::now(), Instant::now());
    let done = admin.hooks.purge(request.clone()).await.map_err(refused)?;
    let name = admin.hooks.edge_name();
    let receipt = purges::receipt(request, done, name, asked, began.elapsed());
    if receipt.dry_run {
        return Ok(Json(receipt).into_response());
    }
    admin.receipts.keep(receipt.clone());
    let location = HeaderValue::from_str(&format!("/purges/{}", receipt.id));
    let mut response = (StatusCode::CREATED, Json(receipt)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn refused(why: PurgeRefused) -> Refusal {
    let (status, kind, title) = match why {
        PurgeRefused::Fleet { .. } => {
            (StatusCode::CONFLICT, "edge-of-a-fleet", "Purges go to the control plane")
        }
        PurgeRefused::UnknownSite(_) => (StatusCode::NOT_FOUND, "not-found", "No such site"),
        PurgeRefused::NotReady => {
            (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready for purges")
        }
    };
    Refusal::new(status, kind, title, why.to_string())
}

async fn receipt(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let found = admin.receipts.find(&id).ok_or_else(|| {
        let detail = "no such purge among the last 1000 of this edge";
        Refusal::new(StatusCode::NOT_FOUND, "purge-not-found", "No such purge", detail)
    })?;
    Ok(Json(found).into_response())
}

async fn no_such_path() -> Refusal {
    let detail = "there are /healthz, /readyz, /metrics, /explain and /purges";
    Refusal::new(StatusCode::NOT_FOUND, "not-found", "No such path", detail)
}

async fn wrong_method(method: Method, uri: http::Uri) -> Response {
    let allowed = if uri.path() == "/purges" { "POST" } else { "GET, HEAD" };
    let detail = format!("{method} is not for this path; {allowed} is");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let refusal = Refusal::new(status, "method-not-allowed", "Not with this method", detail);
    let mut response = refusal.into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
