//! Secrets of sites: set, listed without their values, removed; and given to edges. A value comes in with a
//! body and goes out to an edge, and is in nothing else: no log, no problem, no idempotency key (which would
//! keep a hash of it, and a short secret can be guessed from its hash).

use super::request::{answer, body, page, page_size, parameter};
use super::{App, Failure};
use crate::auth::Caller;
use crate::clock::now_ms;
use crate::state::{Command, Outcome, SecretRecord};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use verge_config::Faults;
use verge_config::api::SecretInfo;
use verge_config::secrets::{NewSecret, SiteSecrets, check};

type Answer = Result<Response, Failure>;

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((site, name)): Path<(String, String)>,
    content: Body,
) -> Answer {
    let NewSecret { value } = read(&body(content).await?)?;
    check(&name, &value).map_err(|faults| Failure::faults("invalid-content", faults))?;
    let sealed = app.keys.seal(&site, &name, &value)?;
    drop(value);
    let command = Command::PutSecret { site: site.clone(), name: name.clone(), sealed };
    let committed = app.store.commit(caller.actor(), None, command, now_ms()).await?;
    let Outcome::Secret { created, revision } = committed.outcome else {
        return Err(super::problem::mixed_up());
    };
    app.metrics.head(revision);
    let info = app.store.read(|state| {
        let secrets = &state.site(caller.tenant(), &site)?.secrets;
        Some(info(&site, &name, secrets.all.get(&name)?))
    });
    let info = info.ok_or_else(|| Failure::not_found("secret", &format!("{site}/{name}")))?;
    Ok(answer(if created { StatusCode::CREATED } else { StatusCode::OK }, &info))
}

/// What a parser says of a body may repeat it.
fn read(bytes: &[u8]) -> Result<NewSecret, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let faults = Faults::one(place, "is not what is wanted here: {\"value\": \"…\"}");
        Failure::faults("invalid-content", faults)
    })
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(site): Path<String>,
    uri: Uri,
) -> Answer {
    let (limit, cursor) = (page_size(&uri)?, parameter(&uri, "cursor").unwrap_or_default());
    let secrets = app.store.read(|state| {
        let all = &state.site(caller.tenant(), &site)?.secrets.all;
        let rest = all.iter().filter(|(name, _)| name.as_str() > cursor.as_str());
        let infos = rest.map(|(name, record)| info(&site, name, record));
        Some(page(infos, limit, |info| info.name.clone()))
    });
    let secrets = secrets.ok_or_else(|| Failure::not_found("site", &site))?;
    Ok(answer(StatusCode::OK, &secrets))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((site, name)): Path<(String, String)>,
) -> Answer {
    let command = Command::RemoveSecret { site, name };
    let committed = app.store.commit(caller.actor(), None, command, now_ms()).await?;
    if let Outcome::Secret { revision, .. } = committed.outcome {
        app.metrics.head(revision);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All of a site's, or none where one of them cannot be opened: an edge goes on with what it has rather
/// than with half of them.
pub(super) async fn for_edge(State(app): State<Arc<App>>, Path(site): Path<String>) -> Answer {
    let sealed = app.store.secrets(&site).await?;
    let sealed = sealed.ok_or_else(|| Failure::not_found("site", &site))?;
    let opened = sealed
        .all
        .iter()
        .map(|(name, sealed)| Ok((name.clone(), app.keys.open_secret(&site, name, sealed)?)));
    let secrets = opened.collect::<Result<_, Failure>>()?;
    let told = SiteSecrets { revision: sealed.revision, secrets };
    let mut response = answer(StatusCode::OK, &told);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

fn info(site: &str, name: &str, record: &SecretRecord) -> SecretInfo {
    SecretInfo {
        site: site.to_owned(),
        name: name.to_owned(),
        set_ms: record.set_ms,
        set_by: record.set_by.clone(),
        revision: record.revision,
    }
}
