//! Requests for another protocol (WebSocket): which of them go to an origin past everything else, and
//! what becomes of them there. Knows no sockets.

use super::{Admitted, Content, Edge, Record, Reply, pool, preview};
use crate::admit;
use crate::body;
use crate::listen::Connection;
use crate::origin::outgoing::is_loop;
use crate::origin::{Hop, OriginPool, OriginStream, UpgradeAnswer};
use crate::previews;
use crate::respond::{self, EdgeError};
use crate::routing;
use http::header::UPGRADE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use std::sync::Arc;
use verge_config::site::Target;

/// An upgrade request on its way to an origin.
pub struct Passage {
    pool: Arc<OriginPool>,
    request: Admitted,
    record: Record,
}

/// An origin that has changed the protocol.
pub struct Switched {
    /// The fields of its 101.
    pub headers: HeaderMap,
    /// The way to it.
    pub stream: OriginStream,
    /// What is told of the tunnel once it has ended.
    pub record: Record,
}

impl Edge {
    /// The way of an upgrade request, when its route leads to an origin; any other request for an
    /// upgrade is served as if it had not asked.
    #[must_use]
    pub fn upgrade_to(
        &self,
        connection: &Arc<Connection>,
        method: &Method,
        authority: &HeaderValue,
        target: &PathAndQuery,
        headers: &HeaderMap,
    ) -> Option<Passage> {
        if *method == Method::CONNECT || *method == Method::TRACE || wants_http(headers) {
            return None;
        }
        let host = admit::host_of(authority).into_owned();
        if connection.sni().is_some_and(|sni| !admit::is_for(sni, &host)) {
            return None;
        }
        let loops = Hop::loops_of(headers);
        if is_loop(&loops, &self.id) {
            return None;
        }
        let snapshot = self.snapshot.load();
        let active = snapshot.site_for(&host)?;
        let version = preview::version(snapshot.previews(active), headers);
        let found = routing::within(version.as_ref().unwrap_or(active), target.path()).ok()?;
        let Target::Origin(origin) = &found.route.target else { return None };
        let pool = pool(found.site, &origin.name).ok()?;
        let version = Version::HTTP_11;
        let mut record = Record::begin(&self.tails, connection, method, target, version);
        record.set_host(&host);
        record.matched(found.site, found.route);
        let hop = Hop {
            client_ip: connection.peer.ip(),
            scheme: connection.scheme(),
            host: host.clone(),
            version: Version::HTTP_11,
            loops,
        };
        let mut headers = headers.clone();
        if !snapshot.previews(active).is_empty() {
            previews::take_off(&mut headers);
        }
        let request = Admitted {
            host,
            method: method.clone(),
            target: target.clone(),
            headers,
            has_content: false,
            hop,
            connection: Arc::clone(connection),
            interim: None,
        };
        Some(Passage { pool, request, record })
    }
}

impl Passage {
    /// Asks the origin.
    ///
    /// # Errors
    /// The response for the visitor when the protocol is not changed, whoever would not.
    pub async fn ask(self) -> Result<Switched, Reply> {
        let Passage { pool, request, mut record } = self;
        let mut asked = http::Request::new(body::empty());
        *asked.method_mut() = request.method;
        *asked.uri_mut() = Uri::from(request.target);
        *asked.headers_mut() = request.headers;
        match pool.upgrade(asked, &request.hop).await {
            Ok(UpgradeAnswer::Switched(headers, stream)) => {
                record.answered(StatusCode::SWITCHING_PROTOCOLS, None);
                Ok(Switched { headers, stream, record })
            }
            Ok(UpgradeAnswer::Declined(response)) => {
                let (parts, body) = response.into_parts();
                record.answered(parts.status, None);
                let content = Content::Stream(body);
                Err(Reply { status: parts.status, headers: parts.headers, content, record })
            }
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                let error = EdgeError::Origin(error);
                record.failed(&error);
                Err(respond::error(&error, record))
            }
        }
    }
}

/// Whether another HTTP is asked for (`h2c`): within it a visitor could send requests past the routes
/// of its site.
fn wants_http(headers: &HeaderMap) -> bool {
    headers
        .get_all(UPGRADE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|protocol| protocol.trim_ascii().to_ascii_lowercase())
        .any(|protocol| protocol.starts_with(b"h2") || protocol.starts_with(b"http"))
}
