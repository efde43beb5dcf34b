//! Previews of versions that are not active: made, listed, ended. The token is told once.

use super::request::{answer, body, idempotency, json, page, page_size, parameter};
use super::{App, Failure};
use crate::auth::{Caller, Secret, random_id};
use crate::clock::now_ms;
use crate::state::{Command, Outcome, PreviewRecord};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use verge_config::Faults;
use verge_config::api::{NewPreview, PreviewCreated, PreviewInfo};
use verge_config::preview::{DEFAULT_TTL, FIELD, MAX_TTL, PATH};

type Answer = Result<Response, Failure>;

/// The most hosts that are named as places to begin at.
const MAX_URLS: usize = 5;

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((site, version)): Path<(String, String)>,
    (method, uri, fields): (Method, Uri, HeaderMap),
    content: Body,
) -> Answer {
    let bytes = body(content).await?;
    let NewPreview { ttl_seconds } =
        if bytes.is_empty() { NewPreview::default() } else { json(&bytes)? };
    let key = idempotency(&fields, &method, &uri, &bytes)?;
    let missing = || Failure::not_found("version", &format!("{site}/{version}"));
    let number: u64 = version.parse().map_err(|_| missing())?;
    let ttl = ttl_seconds.unwrap_or(DEFAULT_TTL.as_secs());
    if ttl == 0 || ttl > MAX_TTL.as_secs() {
        let message = format!("must be 1 to {} seconds", MAX_TTL.as_secs());
        return Err(Failure::faults("invalid-content", Faults::one("ttl_seconds", message)));
    }
    let now = now_ms();
    let secret = Secret::of_preview()?;
    let command = Command::CreatePreview {
        id: random_id("prv")?,
        secret: secret.hash(),
        site: site.clone(),
        version: number,
        expires_ms: now.saturating_add(ttl * 1_000),
    };
    let committed = app.store.commit(caller.actor(), key, command, now).await?;
    if committed.replayed {
        return Err(super::tokens::told_once());
    }
    let Outcome::Preview { id, revision } = committed.outcome else {
        return Err(super::problem::mixed_up());
    };
    app.metrics.head(revision);
    let token = secret.reveal();
    let created = app.store.read(|state| {
        let record = state.site(caller.tenant(), &site)?;
        let preview = record.previews.all.iter().find(|preview| preview.id == id)?;
        let info = info(&site, preview);
        let hosts = record.domains().iter().filter(|domain| !domain.starts_with('*'));
        let url = |host: &String| format!("https://{host}{PATH}?token={token}");
        Some((hosts.take(MAX_URLS).map(url).collect(), info))
    });
    let (urls, info) = created.ok_or_else(|| Failure::not_found("preview", &id))?;
    let created = PreviewCreated { token, field: FIELD.to_owned(), urls, revision, info };
    Ok(answer(StatusCode::CREATED, &created))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    let (limit, cursor) = (page_size(&uri)?, parameter(&uri, "cursor").unwrap_or_default());
    let previews = app.store.read(|state| {
        let all = &state.site(caller.tenant(), &site)?.previews.all;
        let mut living: Vec<&PreviewRecord> =
            all.iter().filter(|preview| preview.expires_ms > now_ms()).collect();
        living.sort_by_key(|preview| std::cmp::Reverse((preview.created_ms, preview.id.clone())));
        let after = living.iter().position(|preview| preview.id == cursor).map_or(0, |at| at + 1);
        let rest = living.into_iter().skip(after).map(|preview| info(&site, preview));
        Some(page(rest, limit, |info| info.id.clone()))
    });
    let previews = previews.ok_or_else(|| Failure::not_found("site", &site))?;
    Ok(answer(StatusCode::OK, &previews))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((site, id)): Path<(String, String)>,
) -> Answer {
    let command = Command::RemovePreview { site, id };
    app.store.commit(caller.actor(), None, command, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn info(site: &str, preview: &PreviewRecord) -> PreviewInfo {
    PreviewInfo {
        id: preview.id.clone(),
        site: site.to_owned(),
        version: preview.version,
        created_ms: preview.created_ms,
        created_by: preview.created_by.clone(),
        expires_ms: preview.expires_ms,
    }
}
