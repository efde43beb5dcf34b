//! An origin pool as the cache's source, and the way past the cache to it.

use super::Admitted;
use crate::body;
use crate::body::Body;
use crate::origin::{EndsUnannounced, Hop, Interim, OriginPool};
use crate::respond::EdgeError;
use futures::future::BoxFuture;
use http::Uri;
use http::uri::PathAndQuery;
use std::sync::Arc;
use verge_cache::{Source, SourceError, SourceRequest, SourceResponse};

/// One URL of one origin, for one visitor's request; it may outlive the visitor.
pub(super) struct OriginSource {
    pool: Arc<OriginPool>,
    target: PathAndQuery,
    hop: Arc<Hop>,
    /// For the visitor whose request it is, if that starts the fetch; whoever waits for another's
    /// gets none.
    interim: Option<Interim>,
}

impl OriginSource {
    pub(super) fn new(pool: Arc<OriginPool>, request: &Admitted) -> OriginSource {
        OriginSource {
            pool,
            target: request.target.clone(),
            hop: Arc::new(request.hop.clone()),
            interim: request.interim.clone(),
        }
    }
}

impl Source for OriginSource {
    fn fetch(
        &self,
        asked: SourceRequest,
    ) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let (pool, hop) = (Arc::clone(&self.pool), Arc::clone(&self.hop));
        let (target, interim) = (self.target.clone(), self.interim.clone());
        Box::pin(async move {
            let mut request = http::Request::new(body::empty());
            *request.method_mut() = asked.method;
            *request.uri_mut() = Uri::from(target);
            *request.headers_mut() = asked.headers;
            if let Some(interim) = interim {
                request.extensions_mut().insert(interim);
            }
            let (parts, body) = pool.send(request, &hop).await?.into_parts();
            let delimited = parts.extensions.get::<EndsUnannounced>().is_none();
            Ok(SourceResponse { status: parts.status, headers: parts.headers, body, delimited })
        })
    }
}

/// Sends a request past the cache, content and all.
pub(super) async fn send(
    pool: &OriginPool,
    request: &Admitted,
    content: Body,
) -> Result<http::Response<Body>, EdgeError> {
    let mut outgoing = http::Request::new(content);
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = Uri::from(request.target.clone());
    *outgoing.headers_mut() = request.headers.clone();
    if let Some(interim) = request.interim.clone() {
        outgoing.extensions_mut().insert(interim);
    }
    pool.send(outgoing, &request.hop).await.map_err(EdgeError::Origin)
}
