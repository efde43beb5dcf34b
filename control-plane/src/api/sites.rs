//! Sites and their versions.

use super::request::{answer, body, etag, idempotency, if_match, json, number, page, page_size};
use super::request::{parameter, with};
use super::{App, Failure};
use crate::auth::{Caller, random_id};
use crate::clock::now_ms;
use crate::state::{Command, Outcome, SiteRecord, Upload, VersionRecord};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use verge_config::api::{Activate, Activated, SiteInfo, VersionInfo};
use verge_config::site::{ComponentRef, Context, Domain, SiteDocument};
use verge_config::{Faults, Site};

type Answer = Result<Response, Failure>;

pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    (method, uri, fields): (Method, Uri, HeaderMap),
    content: Body,
) -> Answer {
    let bytes = body(content).await?;
    let key = idempotency(&fields, &method, &uri, &bytes)?;
    let upload = read(&app, &caller, &site, &fields, &bytes)?;
    let command = Command::Upload(upload);
    let committed = app.store.commit(caller.actor(), key, command, now_ms()).await?;
    let Outcome::Version { version, created, .. } = committed.outcome else {
        return Err(super::problem::mixed_up());
    };
    let info = app.store.read(|state| {
        let owner = state.site(caller.tenant(), &site)?;
        Some(version_info(&site, owner, version, owner.versions.get(&version)?))
    });
    let info = info.ok_or_else(|| Failure::not_found("version", &format!("{site}/{version}")))?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/sites/{site}/versions/{version}");
    Ok(with(answer(status, &info), header::LOCATION, location))
}

/// Reads and validates a document; all of its faults at once, those of its components too.
fn read(
    app: &App,
    caller: &Caller,
    site: &str,
    fields: &HeaderMap,
    bytes: &[u8],
) -> Result<Upload, Failure> {
    let failure = |faults| Failure::faults("invalid-site", faults);
    let document = parse(fields, bytes).map_err(failure)?;
    let mut faults = Faults::default();
    if document.site != site {
        let message = format!("the document is of {:?}, the address of {site:?}", document.site);
        faults.add("site", message);
    }
    let mut components = Vec::new();
    for (name, handler) in &document.handlers {
        let Some(ComponentRef::Digest(digest)) = ComponentRef::parse(&handler.component) else {
            continue;
        };
        let path = format!("handlers.{name}.component");
        if app.store.read(|state| state.owns_blob(caller.tenant(), &digest)).is_none() {
            faults.add(&path, format!("no blob sha256:{digest}; upload it first"));
        }
        components.push((path, digest));
    }
    let valid = match Site::from_document(&document, Context::Fleet) {
        Ok(valid) => faults.or(valid).map_err(failure)?,
        Err(mut all) => {
            all.0.extend(faults.0);
            return Err(failure(all));
        }
    };
    let document = document.to_json();
    Ok(Upload {
        site: site.to_owned(),
        digest: hex::encode(Sha256::digest(document.as_bytes())),
        domains: valid.domains.iter().filter_map(domain).collect(),
        components,
        document: document.into(),
    })
}

fn parse(fields: &HeaderMap, bytes: &[u8]) -> Result<SiteDocument, Faults> {
    let kind = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/toml") {
        return SiteDocument::from_json(bytes);
    }
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|error| Faults::one("", format!("not UTF-8: {error}")))?;
    SiteDocument::from_toml(text)
}

fn domain(domain: &Domain) -> Option<String> {
    match domain {
        Domain::Exact(name) => Some(name.clone()),
        Domain::Wildcard(name) => Some(format!("*.{name}")),
        Domain::Any => None,
    }
}

fn site_info(name: &str, site: &SiteRecord) -> SiteInfo {
    SiteInfo {
        site: name.to_owned(),
        tenant: site.tenant.clone(),
        active: site.active,
        latest: site.latest,
        domains: site.domains().to_vec(),
        revision: site.revision,
    }
}

fn version_info(
    name: &str,
    site: &SiteRecord,
    version: u64,
    record: &VersionRecord,
) -> VersionInfo {
    VersionInfo {
        site: name.to_owned(),
        version,
        active: site.active == Some(version),
        created_ms: record.created_ms,
        created_by: record.created_by.clone(),
        digest: record.digest.clone(),
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Answer {
    let (limit, cursor) = (page_size(&uri)?, parameter(&uri, "cursor").unwrap_or_default());
    let sites = app.store.read(|state| {
        let own = state.sites.iter().filter(|(name, site)| {
            site.tenant == caller.tenant() && !site.removed && name.as_str() > cursor.as_str()
        });
        page(own.map(|(name, site)| site_info(name, site)), limit, |info| info.site.clone())
    });
    Ok(answer(StatusCode::OK, &sites))
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let info =
        app.store.read(|state| state.site(caller.tenant(), &name).map(|s| site_info(&name, s)));
    let info = info.ok_or_else(|| Failure::not_found("site", &name))?;
    let mut response = answer(StatusCode::OK, &info);
    response.headers_mut().insert(header::ETAG, etag(info.revision));
    Ok(response)
}

pub(super) async fn versions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer {
    let (limit, before) = (page_size(&uri)?, number(&uri, "cursor")?.unwrap_or(u64::MAX));
    let versions = app.store.read(|state| {
        let site = state.site(caller.tenant(), &name)?;
        let older = site.versions.range(..before).rev();
        let infos = older.map(|(version, record)| version_info(&name, site, *version, record));
        Some(page(infos, limit, |info| info.version.to_string()))
    });
    let versions = versions.ok_or_else(|| Failure::not_found("site", &name))?;
    Ok(answer(StatusCode::OK, &versions))
}

pub(super) async fn version(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((name, version)): Path<(String, String)>,
) -> Answer {
    let missing = || Failure::not_found("version", &format!("{name}/{version}"));
    let number: u64 = version.parse().map_err(|_| missing())?;
    let digest = app.store.read(|state| {
        let site = state.site(caller.tenant(), &name)?;
        Some(site.versions.get(&number)?.digest.clone())
    });
    let digest = digest.ok_or_else(missing)?;
    let document = app.store.document(&name, number).await?.ok_or_else(missing)?;
    let mut response = Response::new(Body::from(document));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(with(response, header::ETAG, format!("\"{digest}\"")))
}

pub(super) async fn activate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    fields: HeaderMap,
    content: Body,
) -> Answer {
    let Activate { version } = json(&body(content).await?)?;
    let expected = if_match(&fields)?;
    let command = Command::Activate { site, version, expected };
    let committed = app.store.commit(caller.actor(), None, command, now_ms()).await?;
    activated(&app, committed.outcome)
}

pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    (method, uri, fields): (Method, Uri, HeaderMap),
    content: Body,
) -> Answer {
    let bytes = body(content).await?;
    let key = idempotency(&fields, &method, &uri, &bytes)?;
    let command = Command::Rollback { site, expected: if_match(&fields)? };
    let committed = app.store.commit(caller.actor(), key, command, now_ms()).await?;
    activated(&app, committed.outcome)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    fields: HeaderMap,
) -> Answer {
    let expected = if_match(&fields)?;
    let command = Command::RemoveSite { site, purge_id: random_id("prg")?, expected };
    let committed = app.store.commit(caller.actor(), None, command, now_ms()).await?;
    activated(&app, committed.outcome)
}

fn activated(app: &App, outcome: Outcome) -> Answer {
    let Outcome::Activated(activated) = outcome else {
        return Err(super::problem::mixed_up());
    };
    let Activated { revision, .. } = activated;
    app.metrics.head(revision);
    let mut response = answer(StatusCode::OK, &activated);
    response.headers_mut().insert(header::ETAG, etag(revision));
    Ok(response)
}
