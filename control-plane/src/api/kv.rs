//! The key-value stores of sites: for their tenants, and for edges on behalf of sites' handlers. A key is
//! a parameter of the query: as a part of the path, clients and proxies would take "a/../b" or "." apart.

use super::request::{answer, body_of, number, page, page_size, parameter, with};
use super::{App, Failure};
use crate::auth::Caller;
use crate::clock::now_ms;
use crate::state::{Command, EntryWrite, Outcome};
use crate::store::Entry;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Instant;
use verge_config::kv::{
    EntryInfo, KEYS_PER_PAGE, KeyPage, MAX_VALUE_BYTES, REVISION_FIELD, Written, check_key,
};
use verge_config::{Faults, Revision};

type Answer = Result<Response, Failure>;

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
    content: Body,
) -> Answer {
    let key = key(&uri)?;
    known(&app, &caller, &site)?;
    let value = body_of(content, MAX_VALUE_BYTES).await?;
    let bytes = value.len() as u64;
    let now = now_ms();
    let (revision, existed) = write(&app, &caller, &site, &key, Some(value), now).await?;
    let status = if existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok(answer(status, &EntryInfo { key, bytes, revision, updated_ms: now }))
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    let key = key(&uri)?;
    known(&app, &caller, &site)?;
    let found = app.store.entry(&site, &key).await?;
    let entry = found.ok_or_else(|| Failure::not_found("key", &key))?;
    let tag = super::request::etag(entry.revision);
    let mut response = content(entry);
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    let key = key(&uri)?;
    known(&app, &caller, &site)?;
    match write(&app, &caller, &site, &key, None, now_ms()).await? {
        (_, true) => Ok(StatusCode::NO_CONTENT.into_response()),
        (_, false) => Err(Failure::not_found("key", &key)),
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    known(&app, &caller, &site)?;
    let limit = page_size(&uri)?;
    let prefix = parameter(&uri, "prefix").unwrap_or_default();
    let after = parameter(&uri, "cursor").unwrap_or_default();
    let entries = app.store.entries(&site, &prefix, &after, limit + 1).await?;
    let page = page(entries.into_iter(), limit, |entry| entry.key.clone());
    Ok(answer(StatusCode::OK, &page))
}

/// What an edge fetches for a handler. An entry that is not there is no failure: the edge keeps that, too.
pub(super) async fn edge_get(
    State(app): State<Arc<App>>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    let key = key(&uri)?;
    served(&app, &site)?;
    // Before the entry is read: it is at least as new as this says.
    let revision = app.store.read(|state| state.sites.get(&site).map(|s| s.entries.revision));
    let found = app.store.entry(&site, &key).await?;
    let response = found.map_or_else(|| StatusCode::NO_CONTENT.into_response(), content);
    let name = HeaderName::from_static(REVISION_FIELD);
    Ok(with(response, name, revision.unwrap_or(Revision::ZERO).to_string()))
}

pub(super) async fn edge_put(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
    content: Body,
) -> Answer {
    let key = key(&uri)?;
    served(&app, &site)?;
    let value = body_of(content, MAX_VALUE_BYTES).await?;
    let (revision, _) = write(&app, &caller, &site, &key, Some(value), now_ms()).await?;
    Ok(answer(StatusCode::OK, &Written { revision }))
}

pub(super) async fn edge_remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    let key = key(&uri)?;
    served(&app, &site)?;
    let (revision, _) = write(&app, &caller, &site, &key, None, now_ms()).await?;
    Ok(answer(StatusCode::OK, &Written { revision }))
}

pub(super) async fn edge_list(
    State(app): State<Arc<App>>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    served(&app, &site)?;
    let skip = number(&uri, "skip")?.unwrap_or(0);
    let mut keys = app.store.keys(&site, skip, KEYS_PER_PAGE + 1).await?;
    let more = keys.len() > KEYS_PER_PAGE;
    keys.truncate(KEYS_PER_PAGE);
    let next = more.then(|| skip.saturating_add(KEYS_PER_PAGE as u64));
    Ok(answer(StatusCode::OK, &KeyPage { keys, next }))
}

fn key(uri: &Uri) -> Result<String, Failure> {
    let key = parameter(uri, "key").unwrap_or_default();
    match check_key(&key) {
        Ok(()) => Ok(key),
        Err(fault) => Err(Failure::faults("invalid-key", Faults::one("key", fault))),
    }
}

/// The tenant's own site; another's is as if there were none.
fn known(app: &App, caller: &Caller, site: &str) -> Result<(), Failure> {
    let known = app.store.read(|state| state.site(caller.tenant(), site).is_some());
    if known { Ok(()) } else { Err(Failure::not_found("site", site)) }
}

/// The tenant of a site that edges serve.
fn served(app: &App, site: &str) -> Result<String, Failure> {
    let tenant = app.store.read(|state| state.tenant_of_served(site).map(str::to_owned));
    tenant.ok_or_else(|| Failure::not_found("site", site))
}

/// Commits a write, durable when this returns: its revision, and whether there was an entry before.
async fn write(
    app: &App,
    caller: &Caller,
    site: &str,
    key: &str,
    value: Option<Bytes>,
    now: u64,
) -> Result<(Revision, bool), Failure> {
    let by_handler = matches!(caller, Caller::Edge { .. });
    let tenant = if by_handler { served(app, site)? } else { caller.tenant().to_owned() };
    if let Err(wait) = app.kv_rate.take(tenant, Instant::now()) {
        let detail = "this tenant writes entries of key-value stores faster than it may (kv_rate)";
        return Err(Failure::too_many(detail, wait));
    }
    let (site, key) = (site.to_owned(), key.to_owned());
    let command = Command::WriteEntry(EntryWrite { site, key, value, by_handler, held: None });
    match app.store.commit(caller.actor(), None, command, now).await?.outcome {
        Outcome::Entry { revision, existed } => {
            app.metrics.head(revision);
            Ok((revision, existed))
        }
        _ => Err(super::problem::mixed_up()),
    }
}

fn content(entry: Entry) -> Response {
    let mut response = Response::new(Body::from(entry.value));
    let fields = response.headers_mut();
    // Whoever wrote it is not trusted by whoever opens it in a browser.
    let kind = HeaderValue::from_static("application/octet-stream");
    fields.insert(header::CONTENT_TYPE, kind);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
