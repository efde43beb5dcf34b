//! What a site's handlers keep in the cache by keys of their own, beside the responses and apart from
//! them: under a scheme and a host that no request has. Purges reach it as they reach all else of the
//! site. Reads and writes through the cache's own doors and holds nothing.

use super::Guest;
use crate::body;
use crate::serve::Answer;
use crate::telemetry;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Collected};
use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;
use verge_cache::tags::CACHE_TAG;
use verge_cache::{CacheError, Request, Source, SourceError, SourceRequest, SourceResponse};
use verge_config::Revision;
use verge_config::purge::{Mode, Purge, Selector};
use verge_config::site::CachePolicy;
use verge_handlers::{CacheEntry, Unavailable};

/// The scheme of these keys. A visitor's request has `http` or `https`, by its connection.
const SCHEME: &str = "verge-handler";
/// The host of these keys. A request's host is normalised, and so are those of purges: none has a
/// letter in upper case.
const HOST: &str = "HANDLER";

/// Purges by handlers that run at once: each may write to the disk.
static PURGES: Semaphore = Semaphore::const_new(4);

/// Values are kept as they are, for as long as they say.
static POLICY: LazyLock<Arc<CachePolicy>> =
    LazyLock::new(|| CachePolicy { compress: None, ..CachePolicy::default() }.shared());

/// What is stored, and nobody is asked for it.
static ONLY_STORED: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("only-if-cached"))])
});

/// There is nobody to be asked for a value.
struct Nobody;

impl Source for Nobody {
    fn fetch(&self, _: SourceRequest) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        Box::pin(std::future::ready(Err("a handler's value has no source".into())))
    }
}

impl Guest {
    /// The value under a key, while it is fresh.
    pub(super) async fn cache_get(self, key: String) -> Result<Option<Bytes>, Unavailable> {
        let path = path_of(&key);
        let request = self.request(&path, &Method::GET, &ONLY_STORED);
        let found = match self.edge.cache.serve(request, Arc::new(Nobody)).await {
            Ok(response) => Answer::cached(response),
            Err(CacheError::OnlyIfCached) => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        // All of it in memory: nothing longer is ever put there than a guest may. What breaks off while
        // it is read was purged, or its disk failed: it is not there.
        let whole = found.into_response().into_body().collect().await;
        Ok(whole.ok().map(Collected::to_bytes))
    }

    /// Stores a value in the place of what is there. When this returns, a get finds it.
    pub(super) async fn cache_put(self, entry: CacheEntry) -> Result<(), Unavailable> {
        let path = path_of(&entry.key);
        let cache = &self.edge.cache;
        let begun = cache.begin(&self.site.name);
        let answer = SourceResponse {
            status: StatusCode::OK,
            headers: fields_of(&entry, &path)?,
            body: body::full(entry.value),
            delimited: true,
        };
        // The cache takes an answer without a request for it from a POST that says that a GET would
        // get the same (RFC 9110 section 9.3.3).
        let no_fields = HeaderMap::new();
        let request = self.request(&path, &Method::POST, &no_fields);
        let stored = match cache.adopt(request, begun, answer).await {
            Ok(stored) => stored.map_err(|error| unavailable(&error))?,
            Err(_) => return Err(Unavailable("the cache does not take the value".to_owned())),
        };
        // It is stored before its last bytes are handed out.
        let mut content = Answer::cached(stored).into_response().into_body();
        while let Some(frame) = content.frame().await {
            frame.map_err(|error| Unavailable(error.to_string()))?;
        }
        Ok(())
    }

    /// Purges what of this site carries one of the tags, on this edge. It is of no revision: the
    /// history that edges share does not have it.
    pub(super) async fn cache_purge(self, tags: Vec<String>) -> Result<u64, Unavailable> {
        let purge = Purge {
            revision: Revision::ZERO,
            site: self.site.name.to_string(),
            selectors: tags.into_iter().map(Selector::Tag).collect(),
            mode: Mode::Hard,
        };
        // The semaphore is never closed.
        let _turn = PURGES.acquire().await;
        let cache = self.edge.cache.clone();
        let purged = tokio::task::spawn_blocking(move || cache.purge(&purge)).await;
        let purged = purged.map_err(|error| unavailable(&error))?;
        let metrics = telemetry::metrics();
        metrics.purges.inc();
        metrics.purged_objects.inc_by(purged);
        Ok(purged)
    }

    fn request<'a>(
        &'a self,
        path: &'a str,
        method: &'a Method,
        headers: &'a HeaderMap,
    ) -> Request<'a> {
        Request {
            site: &self.site.name,
            scheme: SCHEME,
            host: HOST,
            path,
            query: None,
            method,
            headers,
            policy: &POLICY,
        }
    }
}

/// A key as a path: whatever could mean something in a path is escaped.
fn path_of(key: &str) -> String {
    let mut path = String::with_capacity(key.len() + 1);
    path.push('/');
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn fields_of(entry: &CacheEntry, path: &str) -> Result<HeaderMap, Unavailable> {
    let value = |text: &str| {
        HeaderValue::from_bytes(text.as_bytes()).map_err(|error| Unavailable(error.to_string()))
    };
    let mut fields = HeaderMap::new();
    fields.insert(CACHE_CONTROL, value(&format!("max-age={}", entry.ttl))?);
    fields.insert(CONTENT_LENGTH, HeaderValue::from(entry.value.len()));
    fields.insert(CONTENT_LOCATION, value(path)?);
    if !entry.tags.is_empty() {
        fields.insert(CACHE_TAG, value(&entry.tags.join(","))?);
    }
    Ok(fields)
}

fn unavailable(error: &dyn std::error::Error) -> Unavailable {
    Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use verge_config::purge::normalise_host;

    #[test]
    fn no_host_of_a_request_is_the_one_of_these_keys() {
        assert_ne!(normalise_host(HOST), HOST);
        assert!(SCHEME != "http" && SCHEME != "https");
    }

    #[test]
    fn a_key_is_one_segment_of_a_path() {
        assert_eq!(path_of("a-b_C9"), "/a-b_C9");
        assert_eq!(path_of("../a?b#c%/é"), "/%2E%2E%2Fa%3Fb%23c%25%2F%C3%A9");
    }

    proptest! {
        /// Two keys are two paths, and a path is a field's value.
        #[test]
        fn keys_do_not_meet(one in "[a%/.2Fé ]{1,9}", other in "[a%/.2Fé ]{1,9}") {
            prop_assert_eq!(one == other, path_of(&one) == path_of(&other));
            prop_assert!(HeaderValue::from_str(&path_of(&one)).is_ok());
        }
    }
}
