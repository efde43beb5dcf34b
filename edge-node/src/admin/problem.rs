//! Problem documents (RFC 9457): the only form in which this listener says no.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use verge_config::Faults;
use verge_config::api::Problem;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A refusal.
pub(super) struct Refusal(Problem);

impl Refusal {
    /// A refusal of the kind `/problems/{kind}`, which is `title` in words.
    pub(super) fn new(
        status: StatusCode,
        kind: &str,
        title: &str,
        detail: impl Into<String>,
    ) -> Refusal {
        Refusal(Problem {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            faults: Vec::new(),
        })
    }

    /// A body that was read and is wrong, with every fault of it.
    pub(super) fn invalid(kind: &str, title: &str, faults: Faults) -> Refusal {
        let detail = match faults.0.len() {
            1 => "1 fault".to_owned(),
            count => format!("{count} faults"),
        };
        let mut refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, kind, title, detail);
        refusal.0.faults = faults.0;
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.0)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        response
    }
}
