//! Tokens and tenants.

use super::request::{answer, body, idempotency, json, page, page_size, parameter};
use super::{App, Failure};
use crate::auth::{Caller, Secret, random_id};
use crate::clock::now_ms;
use crate::state::{Command, Outcome, TokenRecord};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use verge_config::api::{NewToken, TokenCreated, TokenInfo};

type Answer = Result<Response, Failure>;

/// The body of `POST /v1/tenants`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTenant {
    name: String,
}

/// A tenant, as `GET /v1/tenants` lists it.
#[derive(Debug, Serialize)]
struct TenantInfo {
    name: String,
    created_ms: u64,
}

/// A secret cannot be shown again, so a request that made one cannot be answered again.
pub(super) fn told_once() -> Failure {
    let detail = "this Idempotency-Key was used already, and the secret is told only once; \
                  revoke what was made and make another with a new key";
    Failure::new(StatusCode::CONFLICT, "told-once", "Told only once", detail)
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    (method, uri, fields): (Method, Uri, HeaderMap),
    content: Body,
) -> Answer {
    let bytes = body(content).await?;
    let NewToken { name, scopes, tenant, expires_in_seconds } = json(&bytes)?;
    let key = idempotency(&fields, &method, &uri, &bytes)?;
    let now = now_ms();
    let secret = Secret::new()?;
    let expires_ms = expires_in_seconds.map(|s| now.saturating_add(s.saturating_mul(1_000)));
    let command = Command::CreateToken {
        id: random_id("tok")?,
        secret: secret.hash(),
        name,
        tenant: tenant.unwrap_or_else(|| caller.tenant().to_owned()),
        scopes,
        expires_ms: expires_ms.map(|end| end.min(i64::MAX as u64)),
    };
    let committed = app.store.commit(caller.actor(), key, command, now).await?;
    if committed.replayed {
        return Err(told_once());
    }
    let Outcome::Token { id } = committed.outcome else { return Err(super::problem::mixed_up()) };
    let info = app.store.read(|state| state.token_by_id(&id).map(|(_, token)| info(token)));
    let info = info.ok_or_else(|| Failure::not_found("token", &id))?;
    Ok(answer(StatusCode::CREATED, &TokenCreated { token: secret.reveal(), info }))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Answer {
    let (limit, cursor) = (page_size(&uri)?, parameter(&uri, "cursor").unwrap_or_default());
    let mut tokens: Vec<TokenInfo> = app.store.read(|state| {
        let visible =
            |token: &&TokenRecord| caller.is_operator() || token.tenant == caller.tenant();
        state.tokens.values().filter(visible).filter(|t| t.id > cursor).map(info).collect()
    });
    tokens.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(answer(StatusCode::OK, &page(tokens.into_iter(), limit, |token| token.id.clone())))
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    let command = Command::RevokeToken { id };
    app.store.commit(caller.actor(), None, command, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn create_tenant(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    (method, uri, fields): (Method, Uri, HeaderMap),
    content: Body,
) -> Answer {
    let bytes = body(content).await?;
    let NewTenant { name } = json(&bytes)?;
    let key = idempotency(&fields, &method, &uri, &bytes)?;
    let command = Command::CreateTenant { name };
    let committed = app.store.commit(caller.actor(), key, command, now_ms()).await?;
    let Outcome::Tenant { name } = committed.outcome else {
        return Err(super::problem::mixed_up());
    };
    let created_ms = app.store.read(|state| state.tenants.get(&name).map(|t| t.created_ms));
    let created_ms = created_ms.unwrap_or_default();
    Ok(answer(StatusCode::CREATED, &TenantInfo { name, created_ms }))
}

pub(super) async fn tenants(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let (limit, cursor) = (page_size(&uri)?, parameter(&uri, "cursor").unwrap_or_default());
    let tenants = app.store.read(|state| {
        let rest = state.tenants.iter().filter(|(name, _)| name.as_str() > cursor.as_str());
        let info = |(name, tenant): (&String, &crate::state::TenantRecord)| TenantInfo {
            name: name.clone(),
            created_ms: tenant.created_ms,
        };
        page(rest.map(info), limit, |tenant| tenant.name.clone())
    });
    Ok(answer(StatusCode::OK, &tenants))
}

fn info(token: &TokenRecord) -> TokenInfo {
    TokenInfo {
        id: token.id.clone(),
        name: token.name.clone(),
        tenant: token.tenant.clone(),
        scopes: token.scopes.clone(),
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
    }
}
