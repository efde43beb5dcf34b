//! Edges: enrolment, the list with lag, and their reports.

use super::request::{answer, body, idempotency, json, page, page_size, parameter};
use super::{App, Failure};
use crate::auth::{Caller, Secret, random_id};
use crate::clock::now_ms;
use crate::state::{Command, Outcome};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use verge_config::api::{Enrol, Enrolled};
use verge_config::feed::Report;

type Answer = Result<Response, Failure>;

pub(super) async fn enrol(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    (method, uri, fields): (Method, Uri, HeaderMap),
    content: Body,
) -> Answer {
    let bytes = body(content).await?;
    let enrol: Enrol = json(&bytes)?;
    let key = idempotency(&fields, &method, &uri, &bytes)?;
    let secret = Secret::new()?;
    let command = Command::Enrol { id: random_id("edg")?, secret: secret.hash(), enrol };
    let committed = app.store.commit(caller.actor(), key, command, now_ms()).await?;
    if committed.replayed {
        return Err(super::tokens::told_once());
    }
    let Outcome::Edge { id } = committed.outcome else { return Err(super::problem::mixed_up()) };
    app.fleet.changed();
    Ok(answer(StatusCode::CREATED, &Enrolled { id, token: secret.reveal() }))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Answer {
    let (limit, cursor) = (page_size(&uri)?, parameter(&uri, "cursor").unwrap_or_default());
    let tenant = if caller.is_operator() { None } else { Some(caller.tenant()) };
    let edges = app.store.read(|state| app.fleet.list(state, tenant));
    let rest = edges.into_iter().filter(|edge| edge.name > cursor);
    Ok(answer(StatusCode::OK, &page(rest, limit, |edge| edge.name.clone())))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let id = app.store.read(|state| state.edge_named(&name).map(|edge| edge.id.clone()));
    let command = Command::RemoveEdge { name };
    app.store.commit(caller.actor(), None, command, now_ms()).await?;
    app.fleet.forget(&id.unwrap_or_default());
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn report(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    content: Body,
) -> Answer {
    let mut report: Report = json(&body(content).await?)?;
    let actor = caller.actor();
    // Answers are of no history: they reach whoever asked even while the store cannot be written.
    let answers = std::mem::take(&mut report.answers);
    if !answers.is_empty() {
        app.questions.answered(&actor.id, answers);
        app.fleet.changed();
    }
    let now = now_ms();
    let command = Command::Report { edge: actor.id.clone(), report };
    let edge = actor.id.clone();
    app.store.commit(actor, None, command, now).await?;
    app.fleet.seen(&edge, now);
    app.fleet.changed();
    Ok(StatusCode::NO_CONTENT.into_response())
}
