//! Components by digest. A tenant sees its own; an edge sees all, for it is told of all sites.

use super::request::answer;
use super::{App, Failure};
use crate::auth::Caller;
use crate::clock::now_ms;
use crate::state::{Command, Outcome};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::StreamExt;
use std::sync::Arc;
use verge_config::api::BlobInfo;

type Answer = Result<Response, Failure>;

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(digest): Path<String>,
    fields: HeaderMap,
    content: Body,
) -> Answer {
    if !is_digest(&digest) {
        let detail = "the address must end in a SHA-256: 64 lower-case hexadecimal digits";
        return Err(Failure::bad_request(detail));
    }
    let length = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length: Option<u64> = length.and_then(|text| text.parse().ok());
    if length.is_some_and(|length| length > app.blobs.limit()) {
        return Err(Failure::too_large(app.blobs.limit()));
    }
    let bytes = app.blobs.put(caller.tenant(), &digest, content.into_data_stream().boxed()).await?;
    let command = Command::AddBlob { digest: digest.clone(), bytes };
    let committed = app.store.commit(caller.actor(), None, command, now_ms()).await?;
    let created = committed.outcome == Outcome::Blob { created: true };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer(status, &BlobInfo { digest, bytes }))
}

pub(super) async fn head(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(digest): Path<String>,
) -> Answer {
    let bytes = visible(&app, &caller, &digest)?;
    Ok(described(Body::empty(), &digest, bytes))
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(digest): Path<String>,
) -> Answer {
    let bytes = visible(&app, &caller, &digest)?;
    let content = app.blobs.get(&digest).await?;
    Ok(described(Body::from_stream(content), &digest, bytes))
}

fn visible(app: &App, caller: &Caller, digest: &str) -> Result<u64, Failure> {
    let bytes = app.store.read(|state| match caller {
        Caller::Edge { .. } => state.any_blob(digest),
        Caller::Token { tenant, .. } => state.owns_blob(tenant, digest),
        Caller::Anyone => None,
    });
    bytes.ok_or_else(|| Failure::not_found("blob", digest))
}

fn described(body: Body, digest: &str, bytes: u64) -> Response {
    let mut response = Response::new(body);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    super::request::with(response, header::ETAG, format!("\"{digest}\""))
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
