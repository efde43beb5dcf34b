//! The one place that turns causes into statuses: every failure as an RFC 9457 problem document.
//! What the outside reads is written here; what only the log may read goes to the log.

use crate::auth::{Access, Denied, NoRandomness};
use crate::blobs::BlobError;
use crate::keys::Unsealed;
use crate::questions::NotAsked;
use crate::state::Rejection;
use crate::store::{CommitError, StoreError};
use crate::tails::NotOpened;
use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::time::Duration;
use verge_config::api::Problem;
use verge_config::{Fault, Faults};

/// A failure on its way out.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    faults: Vec<Fault>,
    hint: Hint,
}

/// What the client's next try needs, as a field of the answer.
#[derive(Debug, Clone, Copy)]
enum Hint {
    None,
    /// A credential: WWW-Authenticate (RFC 9110 section 11.6.1).
    Authenticate,
    /// Patience: Retry-After, in seconds.
    RetryAfter(u64),
}

// === impl Failure ===

impl Failure {
    pub(crate) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Failure {
        Failure { status, kind, title, detail: detail.into(), faults: Vec::new(), hint: Hint::None }
    }

    /// The body says something that cannot be.
    pub(crate) fn faults(kind: &'static str, faults: Faults) -> Failure {
        let detail = format!("{} fault(s); each is named with its place", faults.0.len());
        let mut failure =
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, kind, "The content has faults", detail);
        failure.faults = faults.0;
        failure
    }

    /// The request is not one that could be understood.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail)
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Failure {
        let mut detail = format!("there is no {what} {name:?} here");
        if what == "site" {
            detail.push_str("; if you meant to make it, the name may be taken: choose another");
        }
        Failure::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(crate) fn too_large(limit: u64) -> Failure {
        let detail = format!("at most {limit} bytes are taken here");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Content too large", detail)
    }

    pub(crate) fn too_many(detail: &str, retry: Duration) -> Failure {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let failure = Failure::new(status, "too-many-requests", "Too many requests", detail);
        failure.retry_after(retry)
    }

    pub(crate) fn unavailable(detail: &str) -> Failure {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let failure = Failure::new(status, "unavailable", "Unavailable", detail);
        failure.retry_after(Duration::from_secs(1))
    }

    fn retry_after(mut self, wait: Duration) -> Failure {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        self.hint = Hint::RetryAfter(seconds.max(1));
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: format!("/problems/{}", self.kind),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            faults: self.faults,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        fields.insert(header::CONTENT_TYPE, json);
        match self.hint {
            Hint::None => {}
            Hint::Authenticate => {
                let challenge = HeaderValue::from_static("Bearer realm=\"verge\"");
                fields.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Hint::RetryAfter(seconds) => {
                fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        response
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Failure {
        match denied {
            Denied::Unauthenticated => {
                let detail = "send a valid token: Authorization: Bearer vrg_…";
                let status = StatusCode::UNAUTHORIZED;
                let mut failure =
                    Failure::new(status, "unauthenticated", "No valid credential", detail);
                failure.hint = Hint::Authenticate;
                failure
            }
            Denied::Forbidden(access) => {
                let scopes = |scopes: &[verge_config::api::Scope]| {
                    let names: Vec<String> =
                        scopes.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
                    names.join(" or ")
                };
                let detail = match access {
                    Access::Tenant(wanted) | Access::EdgeOr(wanted) => {
                        format!("this needs a token with the scope {}", scopes(wanted))
                    }
                    Access::Operator(wanted) => {
                        format!("this needs an operator's token with the scope {}", scopes(wanted))
                    }
                    Access::Edge | Access::Public => "this is for edges".to_owned(),
                };
                Failure::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
            }
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Failure {
        let detail = rejection.to_string();
        match rejection {
            Rejection::NotFound { what, name } => Failure::not_found(what, &name),
            Rejection::Invalid(faults) => Failure::faults("invalid-content", faults),
            Rejection::Conflict(detail) => {
                Failure::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
            }
            Rejection::Forbidden(detail) => {
                Failure::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
            }
            Rejection::Precondition { .. } => {
                let status = StatusCode::PRECONDITION_FAILED;
                Failure::new(status, "precondition-failed", "Changed meanwhile", detail)
            }
            Rejection::Limit { .. } => {
                Failure::new(StatusCode::CONFLICT, "limit-reached", "Limit reached", detail)
            }
            Rejection::AheadOfHistory { .. } => {
                let status = StatusCode::CONFLICT;
                Failure::new(status, "ahead-of-history", "Not of this history", detail)
            }
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Failure {
        match error {
            CommitError::Rejected(rejection) => rejection.into(),
            CommitError::KeyReused => Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "Idempotency-Key used before",
                "this Idempotency-Key was used for another request",
            ),
            CommitError::Full => full(),
            CommitError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        if error.is_full() {
            return full();
        }
        tracing::error!(%error, "the store fails");
        Failure::unavailable("the store does not answer; nothing was acknowledged")
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Failure {
        let detail = error.to_string();
        match error {
            BlobError::WrongDigest { .. } => {
                let status = StatusCode::BAD_REQUEST;
                Failure::new(status, "wrong-digest", "Wrong digest", detail)
            }
            BlobError::TooLarge { limit } => Failure::too_large(limit),
            BlobError::Invalid(fault) => {
                Failure::faults("invalid-component", Faults::one("", fault))
            }
            BlobError::Broken => Failure::bad_request(detail),
            BlobError::Busy => Failure::unavailable(&detail),
            BlobError::Store(error) => error.into(),
            BlobError::Objects(error) => {
                tracing::error!(%error, "the blob store fails");
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    if let Some(io) = error.downcast_ref::<std::io::Error>()
                        && io.kind() == std::io::ErrorKind::StorageFull
                    {
                        return full();
                    }
                    cause = error.source();
                }
                Failure::unavailable("the blob store does not answer")
            }
        }
    }
}

impl From<NotAsked> for Failure {
    fn from(error: NotAsked) -> Failure {
        match error {
            NotAsked::TooMany => Failure::too_many(&error.to_string(), Duration::from_secs(1)),
            NotAsked::NoRandomness(error) => error.into(),
            NotAsked::Unwritable(error) => {
                tracing::error!(%error, "a question cannot be written");
                mixed_up()
            }
        }
    }
}

impl From<NotOpened> for Failure {
    fn from(error: NotOpened) -> Failure {
        match error {
            NotOpened::TooMany => Failure::too_many(&error.to_string(), Duration::from_secs(5)),
            NotOpened::NoRandomness(error) => error.into(),
            NotOpened::NotAsked(error) => error.into(),
        }
    }
}

impl From<NoRandomness> for Failure {
    fn from(error: NoRandomness) -> Failure {
        tracing::error!(%error, "cannot make a secret");
        Failure::unavailable("no randomness is to be had")
    }
}

impl From<Unsealed> for Failure {
    fn from(error: Unsealed) -> Failure {
        tracing::error!(%error, "a secret is not sealed or opened");
        let detail = "a secret cannot be sealed or opened; the log says which, and why";
        Failure::unavailable(detail)
    }
}

fn full() -> Failure {
    let detail = "the control plane's disk is full; nothing was stored or acknowledged";
    Failure::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "No room", detail)
}

pub(super) async fn no_such_path(uri: Uri) -> Failure {
    let _ = uri;
    let detail = "there is nothing at this path; GET /v1/openapi.json lists what there is";
    Failure::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
}

pub(super) async fn no_such_method(method: Method) -> Failure {
    let detail = format!("{method} is not offered at this path");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
}

pub(super) fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    let detail = "a fault of the control plane; it is in its log";
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Failure::new(status, "internal", "Internal error", detail).into_response()
}

/// An idempotency key's outcome is of another kind of command: its fingerprint makes that impossible.
pub(super) fn mixed_up() -> Failure {
    tracing::error!("a command led to the outcome of another kind");
    let detail = "a fault of the control plane; it is in its log";
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
}
