//! What is asked of the edges at once and kept nowhere: dry runs of purges, explanations of URLs.

use super::purges::wait_of;
use super::request::{answer, parameter, parameters};
use super::{App, Failure};
use crate::auth::Caller;
use crate::clock::now_ms;
use crate::dry_run::{self, DryRun};
use crate::fleet::Wait;
use crate::questions::Asking;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;
use verge_config::PurgeRequest;
use verge_config::api::{AnswerState, EdgeExplanation, Explanations};
use verge_config::feed::{Asked, Told};
use verge_config::purge::normalise_host;

type Answer = Result<Response, Failure>;

/// How long the edges that are connected are waited for when nothing else is asked for.
const A_LITTLE: Duration = Duration::from_secs(2);
/// A question is open no longer.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Answers wake whoever waits; this is in case one is missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The longest URL, in bytes, and the most fields of a request that is to be explained.
const MAX_URL_BYTES: usize = 8 * 1024;
const MAX_FIELDS: usize = 32;
const MAX_FIELD_BYTES: usize = 4 * 1024;

/// Counts what a valid purge would be for, on every edge that answers. Commits nothing.
pub(super) async fn dry_run(
    app: &App,
    caller: &Caller,
    uri: &Uri,
    request: &PurgeRequest,
) -> Answer {
    let patience = patience(uri)?;
    let site = request.site.clone().unwrap_or_default();
    if app.store.read(|state| state.site(caller.tenant(), &site).is_none()) {
        return Err(Failure::not_found("site", &site));
    }
    let asked = Asked::Preview { site, selectors: request.selectors.clone(), mode: request.mode };
    let asked_ms = now_ms();
    let asking = app.questions.ask(caller.tenant(), "dry", asked)?;
    waited(app, patience, &asking).await;
    let by = caller.actor().name;
    let run = DryRun { id: &asking.id, request, by: &by, asked_ms };
    let answers = asking.answers();
    let receipt = app.store.read(|state| dry_run::receipt(state, &app.fleet, &run, answers));
    Ok(answer(StatusCode::OK, &receipt))
}

pub(super) async fn explain(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Answer {
    let patience = patience(&uri)?;
    let (url, host) = url_of(&uri)?;
    let fields = fields_of(&uri)?;
    // A host of another tenant's is as one that nobody has.
    let site = app.store.read(|state| {
        let name = state.site_for(&host)?;
        state.site(caller.tenant(), name).map(|_| name.to_owned())
    });
    let site = site.ok_or_else(|| Failure::not_found("site for the host", &host))?;
    let asked = Asked::Explain { site: site.clone(), url: url.clone(), fields };
    let asking = app.questions.ask(caller.tenant(), "exp", asked)?;
    waited(&app, patience, &asking).await;
    let mut answers = asking.answers();
    let (revision, edges) = app.store.read(|state| {
        let enrolled = state.edges.values().filter(|edge| edge.removed.is_none());
        let part = |edge: &crate::state::EdgeRecord| {
            explained(&edge.name, app.fleet.is_connected(&edge.id), answers.remove(&edge.id))
        };
        let mut edges: Vec<EdgeExplanation> = enrolled.map(part).collect();
        edges.sort_by(|a, b| a.edge.cmp(&b.edge));
        (state.revision, edges)
    });
    let complete = edges.iter().all(|edge| edge.state == AnswerState::Answered);
    Ok(answer(StatusCode::OK, &Explanations { url, site, revision, complete, edges }))
}

fn explained(edge: &str, connected: bool, told: Option<Told>) -> EdgeExplanation {
    let (state, explanation, reason) = match told {
        Some(Told::Explained { explanation }) => (AnswerState::Answered, Some(explanation), None),
        Some(Told::Refused { reason }) => (AnswerState::Refused, None, Some(reason)),
        Some(Told::Preview { .. } | Told::Tailing | Told::Unknown) => {
            let reason = "an answer that this version does not know".to_owned();
            (AnswerState::Refused, None, Some(reason))
        }
        None if connected => (AnswerState::Pending, None, None),
        None => (AnswerState::Offline, None, None),
    };
    EdgeExplanation { edge: edge.to_owned(), state, explanation, reason }
}

/// Whom to wait for, and how long. Nothing of a question is kept, so that some wait there always is.
fn patience(uri: &Uri) -> Result<(Wait, Duration), Failure> {
    if parameter(uri, "wait").as_deref() == Some("none") {
        let detail = "the answer is not kept: without waiting there is none; leave wait away";
        return Err(Failure::bad_request(detail));
    }
    let (wait, timeout) = wait_of(uri)?;
    let given = parameter(uri, "timeout").is_some();
    let timeout = if given || wait != Wait::None { timeout } else { A_LITTLE };
    Ok((wait, timeout.min(MAX_WAIT)))
}

/// Waits as asked, or until the control plane stops.
async fn waited(app: &App, (wait, timeout): (Wait, Duration), asking: &Asking) {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut changes = app.fleet.watch();
    loop {
        changes.borrow_and_update();
        let answered = |edge: &str| asking.is_answered_by(edge);
        if app.store.read(|state| app.fleet.is_enough(state, wait, answered)) {
            return;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep_until(deadline) => return,
        }
    }
}

/// The URL that is asked for, and its host without a port.
fn url_of(uri: &Uri) -> Result<(String, String), Failure> {
    let wrong = |what: &str| {
        Failure::bad_request(format!("{what}: ?url=https%3A%2F%2Fshop.example%2Fpath"))
    };
    let url = parameter(uri, "url").ok_or_else(|| wrong("say which URL"))?;
    if url.len() > MAX_URL_BYTES {
        return Err(Failure::bad_request(format!("a URL of more than {MAX_URL_BYTES} bytes")));
    }
    let parsed: Uri = url.parse().map_err(|_| wrong("that is not a URL"))?;
    let scheme = parsed.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    let host = parsed.host().filter(|_| scheme).ok_or_else(|| wrong("not an http or https URL"))?;
    let host = normalise_host(host);
    Ok((url, host))
}

/// The fields that the request would have: each `field=name:value`.
fn fields_of(uri: &Uri) -> Result<Vec<(String, String)>, Failure> {
    let texts = parameters(uri, "field");
    if texts.len() > MAX_FIELDS {
        return Err(Failure::bad_request(format!("more than {MAX_FIELDS} fields")));
    }
    let field = |text: &String| {
        let (name, value) = text.split_once(':')?;
        let (name, value) = (name.trim(), value.trim());
        let valid = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
        (valid && text.len() <= MAX_FIELD_BYTES).then(|| (name.to_owned(), value.to_owned()))
    };
    let fields: Option<Vec<_>> = texts.iter().map(field).collect();
    fields.ok_or_else(|| {
        Failure::bad_request("a field is written name:value, as in field=accept-encoding:br")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Uri {
        format!("/v1/explanations?{query}").parse().unwrap()
    }

    #[test]
    fn a_url_has_a_host() {
        let (url, host) = url_of(&of("url=https%3A%2F%2FShop.Example.%3A8443%2Fa%3Fb")).unwrap();
        assert_eq!(
            (url.as_str(), host.as_str()),
            ("https://Shop.Example.:8443/a?b", "shop.example")
        );
        for wrong in ["", "url=", "url=%2Fa", "url=ftp%3A%2F%2Fa%2F", "url=shop.example"] {
            assert!(url_of(&of(wrong)).is_err(), "{wrong}");
        }
        let long = format!("url=http%3A%2F%2Fa%2F{}", "x".repeat(MAX_URL_BYTES));
        assert!(url_of(&of(&long)).is_err());
    }

    #[test]
    fn fields_are_names_and_values() {
        let fields = fields_of(&of("field=Accept-Encoding:%20br&field=x:")).unwrap();
        let expected = [("Accept-Encoding".to_owned(), "br".to_owned()), ("x".into(), "".into())];
        assert_eq!(fields, expected);
        for wrong in ["field=x", "field=a%20b:c", "field=a:b%0ac"] {
            assert!(fields_of(&of(wrong)).is_err(), "{wrong}");
        }
        assert!(fields_of(&of(&"field=a:b&".repeat(MAX_FIELDS + 1))).is_err());
    }

    #[test]
    fn some_wait_there_always_is() {
        assert!(patience(&of("wait=none")).is_err());
        assert_eq!(patience(&of("")).unwrap(), (Wait::None, A_LITTLE));
        assert_eq!(patience(&of("timeout=5s")).unwrap(), (Wait::None, Duration::from_secs(5)));
        let (wait, timeout) = patience(&of("wait=all")).unwrap();
        assert!(wait == Wait::All && timeout > A_LITTLE);
        assert_eq!(patience(&of("wait=all&timeout=5m")).unwrap(), (Wait::All, MAX_WAIT));
    }
}
