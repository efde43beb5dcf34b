//! Turns the edge's own errors into responses: the only place that names a 4xx or 5xx of ours. What a
//! visitor reads here is not what the log reads.

use crate::origin::OriginError;
use crate::serve::{Content, Record, Reply};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use verge_cache::CacheError;
use verge_cache::cache_status::{CACHE_STATUS, CacheStatus};
use verge_handlers::Ended;

/// The usual methods; any other that is a token is passed on as well.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why a request gets no response of the site's.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// No site answers the host.
    #[error("no site answers the host {0:?}")]
    NoSite(String),
    /// The host is not the one that the connection's certificate was asked for (RFC 9110 section
    /// 15.5.20).
    #[error("the connection is for {sni:?}, the request for {host:?}")]
    Misdirected {
        /// What TLS asked for.
        sni: String,
        /// What the request asks for.
        host: String,
    },
    /// The site has no route for the path.
    #[error("no route of site {0}")]
    NoRoute(String),
    /// A method that is not passed on.
    #[error("method {0} is not passed on")]
    Method(http::Method),
    /// The request came back to this edge.
    #[error("the request came back to this edge")]
    Loop,
    /// The origin failed.
    #[error("origin: {0}")]
    Origin(#[source] OriginError),
    /// The source failed with an error that is not an origin's or a handler's.
    #[error("source: {0}")]
    Source(String),
    /// The handler ended without a response.
    #[error("handler: {0}")]
    Handler(#[source] Ended),
    /// The visitor wanted a stored response or none (RFC 9111 section 5.2.1.7).
    #[error("nothing usable is stored and the visitor asked for stored only")]
    OnlyIfCached,
    /// What the cache could not answer, and its part in that.
    #[error("{0}")]
    Cache(#[source] Box<EdgeError>, CacheStatus),
    /// The runtime of the site lacks what its document names: a fault of ours.
    #[error("{0}")]
    Internal(&'static str),
}

impl EdgeError {
    /// The status that the visitor gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            EdgeError::NoSite(_) | EdgeError::NoRoute(_) => StatusCode::NOT_FOUND,
            EdgeError::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            EdgeError::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            EdgeError::Loop => StatusCode::LOOP_DETECTED,
            EdgeError::Origin(error) => error.status(),
            EdgeError::Source(_) => StatusCode::BAD_GATEWAY,
            EdgeError::Handler(ended) => ended.status(),
            EdgeError::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            EdgeError::Cache(error, _) => error.status(),
            EdgeError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the visitor reads: nothing of addresses, names or causes within.
    fn text(&self) -> &'static str {
        match self {
            EdgeError::NoSite(_) => "No site is served under this host.",
            EdgeError::Misdirected { .. } => "This connection is for another host; open a new one.",
            EdgeError::NoRoute(_) => "The site has nothing under this path.",
            EdgeError::Method(_) => "This method is not supported.",
            EdgeError::Loop => "The request came back to where it had been.",
            EdgeError::Origin(error) => match error.status() {
                StatusCode::GATEWAY_TIMEOUT => "The site's origin server did not answer in time.",
                StatusCode::SERVICE_UNAVAILABLE => "The site's origin server is busy.",
                StatusCode::LOOP_DETECTED => "The request came back to where it had been.",
                StatusCode::BAD_REQUEST => "The request's content did not arrive whole.",
                _ => "The site's origin server could not be reached or gave no valid answer.",
            },
            EdgeError::Source(_) => "The site's origin server gave no valid answer.",
            EdgeError::Handler(Ended::Busy(_) | Ended::InstanceLimit(_)) => {
                "The site's handler is busy."
            }
            EdgeError::Handler(Ended::Tripped(_)) => "The site's handler is out of order.",
            EdgeError::Handler(_) => "The site's handler did not answer this request.",
            EdgeError::OnlyIfCached => "No stored response can be used.",
            EdgeError::Cache(error, _) => error.text(),
            EdgeError::Internal(_) => "The edge could not serve this request.",
        }
    }

    /// After how many seconds the visitor may come again, where that may help.
    fn retry_after(&self) -> Option<u64> {
        match self {
            EdgeError::Handler(ended) => ended.retry_after().map(verge_handlers::seconds),
            EdgeError::Cache(error, _) => error.retry_after(),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }

    /// The error type for `Proxy-Status` (RFC 9209 section 2.3), where there is one.
    fn proxy_status(&self) -> Option<&'static str> {
        match self {
            EdgeError::NoSite(_) | EdgeError::NoRoute(_) => Some("destination_not_found"),
            EdgeError::Loop => Some("proxy_loop_detected"),
            EdgeError::Origin(error) => Some(error.proxy_status_error()),
            EdgeError::Source(_) => Some("http_protocol_error"),
            EdgeError::Handler(Ended::Busy(_) | Ended::InstanceLimit(_)) => {
                Some("connection_limit_reached")
            }
            EdgeError::Handler(Ended::Tripped(_)) => Some("destination_unavailable"),
            EdgeError::Handler(_) | EdgeError::Internal(_) => Some("proxy_internal_error"),
            EdgeError::Misdirected { .. } | EdgeError::Method(_) => Some("http_request_denied"),
            EdgeError::OnlyIfCached => None,
            EdgeError::Cache(error, _) => error.proxy_status(),
        }
    }
}

impl From<CacheError> for EdgeError {
    fn from(error: CacheError) -> Self {
        let status = error.status();
        let error = match error {
            CacheError::OnlyIfCached => EdgeError::OnlyIfCached,
            CacheError::Source { cause, .. } => from_source(cause.as_ref().as_ref()),
            CacheError::Abandoned => EdgeError::Internal("the fill was given up"),
        };
        EdgeError::Cache(Box::new(error), status)
    }
}

/// The edge's error behind what a source failed with.
fn from_source(cause: &(dyn std::error::Error + 'static)) -> EdgeError {
    if let Some(origin) = OriginError::find(cause) {
        return EdgeError::Origin(origin.clone());
    }
    let mut next = Some(cause);
    while let Some(error) = next {
        if let Some(ended) = error.downcast_ref::<Ended>() {
            return EdgeError::Handler(ended.clone());
        }
        next = error.source();
    }
    EdgeError::Source(cause.to_string())
}

/// The reply to a request that ended in an error.
#[must_use]
pub fn error(error: &EdgeError, record: Record) -> Reply {
    reply(response(error), record)
}

/// The response to an error.
#[must_use]
pub fn response(error: &EdgeError) -> Response<Bytes> {
    let status = error.status();
    let mut response = page(status, error.text());
    let headers = response.headers_mut();
    if let Some(kind) = error.proxy_status()
        && let Ok(value) = HeaderValue::from_str(&format!("verge; error={kind}"))
    {
        headers.insert(PROXY_STATUS, value);
    }
    if let EdgeError::Cache(_, status) = error {
        headers.insert(CACHE_STATUS, status.value());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    }
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The response to a request that never became one.
#[must_use]
pub fn refused(status: StatusCode, text: &str) -> Reply {
    let mut response = page(status, text);
    let value = HeaderValue::from_static("verge; error=http_request_error");
    response.headers_mut().insert(PROXY_STATUS, value);
    reply(response, Record::bare(status))
}

fn reply(response: Response<Bytes>, record: Record) -> Reply {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status, parts.headers);
    Reply { status, headers, content: Content::Whole(body), record }
}

fn page(status: StatusCode, text: &str) -> Response<Bytes> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let body = Bytes::from(format!("{} {reason}\n{text}\n", status.as_u16()));
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, length);
    response
}
