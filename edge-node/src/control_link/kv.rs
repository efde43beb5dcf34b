//! Asks the control plane for entries of key-value stores, and writes them there. Keeps nothing; which
//! copies are good is another room's affair.

use super::client::{ClientError, Content};
use super::session::{Session, SessionError, collect};
use super::status::LinkStatus;
use crate::kv::{Fetched, Keeper, KvError, Wish};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use url::form_urlencoded;
use verge_config::Revision;
use verge_config::kv::{
    KEYS_PER_PAGE, KeyPage, MAX_KEY_BYTES, MAX_VALUE_BYTES, REVISION_FIELD, Written,
};

/// The longest page of keys: JSON may write a byte as six.
const PAGE_MAX: usize = KEYS_PER_PAGE * (6 * MAX_KEY_BYTES + 8) + 4096;
/// How long an answer's content may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The control plane, as who keeps entries.
pub(super) struct Remote {
    session: Arc<Session>,
    status: Arc<LinkStatus>,
}

// === impl Remote ===

impl Remote {
    pub(super) fn new(session: Arc<Session>, status: Arc<LinkStatus>) -> Remote {
        Remote { session, status }
    }

    async fn fetch(&self, site: &str, key: &str) -> Result<Fetched, SessionError> {
        let response = self.session.send(Method::GET, &entry(site, key), None).await?;
        let field = response.headers().get(REVISION_FIELD);
        let as_of = field.and_then(|value| value.to_str().ok()?.parse().ok()).map(Revision);
        let as_of = as_of
            .ok_or_else(|| ClientError::Malformed("a value without its revision".to_owned()))?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Fetched { value: None, as_of });
        }
        let value = collect(response, MAX_VALUE_BYTES, BODY_TIMEOUT).await?;
        Ok(Fetched { value: Some(value), as_of })
    }

    async fn write(
        &self,
        site: &str,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<Revision, SessionError> {
        let method = if value.is_some() { Method::PUT } else { Method::DELETE };
        let written: Written =
            self.json(method, &entry(site, key), value.map(Content::raw), 4096).await?;
        Ok(written.revision)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        content: Option<Content>,
        limit: usize,
    ) -> Result<T, SessionError> {
        let response = self.session.send(method, target, content).await?;
        let answer = collect(response, limit, BODY_TIMEOUT).await?;
        let read = serde_json::from_slice(&answer);
        Ok(read.map_err(|error| ClientError::Malformed(error.to_string()))?)
    }
}

impl Keeper for Remote {
    /// Without the feed nothing is told of changes; and the attempts of many requests to connect would keep
    /// the feed from doing so.
    fn is_there(&self) -> bool {
        self.status.is_connected()
    }

    fn get<'a>(&'a self, site: &'a str, key: &'a str) -> BoxFuture<'a, Result<Fetched, KvError>> {
        Box::pin(
            async move { self.fetch(site, key).await.map_err(|error| failed(&error, Wish::Read)) },
        )
    }

    fn set<'a>(
        &'a self,
        site: &'a str,
        key: &'a str,
        value: Option<Bytes>,
    ) -> BoxFuture<'a, Result<Revision, KvError>> {
        Box::pin(async move {
            self.write(site, key, value).await.map_err(|error| failed(&error, Wish::Write))
        })
    }

    fn keys<'a>(&'a self, site: &'a str, skip: u64) -> BoxFuture<'a, Result<KeyPage, KvError>> {
        Box::pin(async move {
            let target = format!("/v1/edges/self/kv/{site}?skip={skip}");
            let page = self.json(Method::GET, &target, None, PAGE_MAX).await;
            page.map_err(|error| failed(&error, Wish::List))
        })
    }
}

/// The path and query of an entry. A site's name needs no escape.
fn entry(site: &str, key: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("key", key);
    format!("/v1/edges/self/kv/{site}/entry?{}", query.finish())
}

/// What a handler is told: nothing of this edge's standing with its control plane.
fn failed(error: &SessionError, wish: Wish) -> KvError {
    match error {
        SessionError::Client(ClientError::Status { status, detail })
            if status.is_client_error() && *status != StatusCode::UNAUTHORIZED =>
        {
            KvError::Refused(format!("the control plane says no: {detail}"))
        }
        SessionError::Client(ClientError::Status { status, detail })
            if *status == StatusCode::INSUFFICIENT_STORAGE =>
        {
            KvError::Refused(detail.clone())
        }
        SessionError::Client(ClientError::Broken(_) | ClientError::Timeout)
            if wish == Wish::Write =>
        {
            KvError::Unanswered
        }
        error => {
            tracing::debug!(%error, "an entry's keeper does not answer");
            KvError::Away(wish)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_one_parameter() {
        assert_eq!(
            entry("shop", "../a b&key=c?#é"),
            "/v1/edges/self/kv/shop/entry?key=..%2Fa+b%26key%3Dc%3F%23%C3%A9"
        );
    }

    #[test]
    fn a_refusal_is_told_and_a_fault_is_not() {
        let status = |status, detail: &str| {
            let detail = detail.to_owned();
            failed(&ClientError::Status { status, detail }.into(), Wish::Write)
        };
        let full = status(StatusCode::CONFLICT, "the limit of 10000 is reached");
        assert!(matches!(full, KvError::Refused(text) if text.contains("limit of 10000")));
        for code in [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE] {
            assert_eq!(status(code, "a secret"), KvError::Away(Wish::Write));
        }
        assert_eq!(failed(&ClientError::Timeout.into(), Wish::Read), KvError::Away(Wish::Read));
        assert_eq!(failed(&ClientError::Timeout.into(), Wish::Write), KvError::Unanswered);
    }
}
