//! Upgrades (RFC 9110 section 7.8): a request that asks an origin for another protocol, on a
//! connection that serves nothing else before or after. Copies nothing; that is the front's part.

use super::connect::Target;
use super::error::{Stage, from_hyper};
use super::pool::adapt;
use super::{
    Hop, MAX_ATTEMPTS, MAX_TUNNELS, OriginError, OriginPool, exchange, mark, outgoing, telemetry,
};
use crate::body::{self, Body};
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

/// What an origin makes of the wish for another protocol.
pub enum UpgradeAnswer {
    /// `101 Switching Protocols`: its fields, fit to be passed on with `Upgrade` among them, and the
    /// connection, which speaks the new protocol from here on.
    Switched(HeaderMap, OriginStream),
    /// Any other response, as [`OriginPool::send`] gives it.
    Declined(Response<Body>),
}

/// A connection that has changed its protocol; what the origin had sent behind its header section
/// is read first.
pub struct OriginStream {
    io: TokioIo<hyper::upgrade::Upgraded>,
    _permit: Arc<OwnedSemaphorePermit>,
}

// === impl OriginPool ===

impl OriginPool {
    /// Asks for the protocols in the request's `Upgrade`. The request is as in [`OriginPool::send`],
    /// without content. An address that cannot be reached gives way to the next; what was sent is
    /// never sent again.
    ///
    /// # Errors
    /// Every way in which there is no response; a 101 to what was not asked for is `Protocol`.
    pub async fn upgrade(
        &self,
        mut request: Request<Body>,
        hop: &Hop,
    ) -> Result<UpgradeAnswer, OriginError> {
        let result = self.ask_upgrade(&mut request, hop).await;
        telemetry::metrics().origin.request(result.as_ref().map(UpgradeAnswer::status));
        result
    }

    async fn ask_upgrade(
        &self,
        request: &mut Request<Body>,
        hop: &Hop,
    ) -> Result<UpgradeAnswer, OriginError> {
        let edge_id = &self.dialer.settings().edge_id;
        let headers = request.headers_mut();
        let wanted: Vec<HeaderValue> = headers.get_all(UPGRADE).iter().cloned().collect();
        outgoing::to_origin(headers, hop, self.origin.host.as_deref(), edge_id)?;
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        for protocol in &wanted {
            headers.append(UPGRADE, protocol.clone());
        }
        let busy = |_| OriginError::Busy { limit: MAX_TUNNELS };
        let permit = Arc::clone(&self.tunnels).try_acquire_owned().map_err(busy)?;
        let (index, target, sender) = self.reach().await?;
        let request = adapt(std::mem::take(request).map(|_| body::empty()), false, target.tls)?;
        let answer = self.asked(sender, request, &wanted, Arc::new(permit)).await?;
        self.note(index, true);
        Ok(answer)
    }

    /// A new connection to the first address that takes one.
    async fn reach(&self) -> Result<(usize, &Target, http1::SendRequest<Body>), OriginError> {
        let mut tried = vec![false; self.endpoints.len()];
        let mut last = None;
        for _ in 0..MAX_ATTEMPTS {
            let Some((index, endpoint)) = self.choose(&tried) else { break };
            let target = &endpoint.target;
            let patience = self.origin.timeouts.connect;
            match self.dialer.dial_upgrade(target, Instant::now(), patience).await {
                Ok(sender) => return Ok((index, target, sender)),
                Err(error) => {
                    self.note(index, false);
                    mark(&mut tried, index);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nowhere()))
    }

    async fn asked(
        &self,
        mut sender: http1::SendRequest<Body>,
        request: Request<Body>,
        wanted: &[HeaderValue],
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Result<UpgradeAnswer, OriginError> {
        let timeouts = self.origin.timeouts;
        let asking = sender.send_request(request);
        let response = exchange::await_head(asking, None, timeouts.first_byte)
            .await?
            .map_err(|error| from_hyper(&error, Stage::Head))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let response = exchange::accept(response, None, permit, timeouts.between_bytes)?;
            return Ok(UpgradeAnswer::Declined(response));
        }
        let headers = switched(&response, wanted)?;
        let late = |_| OriginError::FirstByteTimeout { after: timeouts.connect };
        let io = timeout(timeouts.connect, hyper::upgrade::on(response))
            .await
            .map_err(late)?
            .map_err(|error| from_hyper(&error, Stage::Head))?;
        // Kept until here: hyper ends a connection that nobody can send on.
        drop(sender);
        Ok(UpgradeAnswer::Switched(headers, OriginStream { io: TokioIo::new(io), _permit: permit }))
    }
}

// === impl UpgradeAnswer ===

impl UpgradeAnswer {
    fn status(&self) -> StatusCode {
        match self {
            UpgradeAnswer::Switched(..) => StatusCode::SWITCHING_PROTOCOLS,
            UpgradeAnswer::Declined(response) => response.status(),
        }
    }
}

/// The fields of a 101 that are passed on. An origin may choose among the protocols that were asked
/// for and no other (RFC 9110 section 7.8).
fn switched(
    response: &Response<Incoming>,
    wanted: &[HeaderValue],
) -> Result<HeaderMap, OriginError> {
    let refuse = |what: &str| Err(OriginError::Protocol { what: what.to_owned() });
    exchange::check_size(response.headers())?;
    let chosen: Vec<HeaderValue> = response.headers().get_all(UPGRADE).iter().cloned().collect();
    if protocols(&chosen).next().is_none() {
        return refuse("a 101 that does not say which protocol");
    }
    let asked = |name: &[u8]| protocols(wanted).any(|wanted| wanted.eq_ignore_ascii_case(name));
    if !protocols(&chosen).all(asked) {
        return refuse("a 101 to a protocol that was not asked for");
    }
    let mut headers = response.headers().clone();
    outgoing::strip_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    for protocol in chosen {
        headers.append(UPGRADE, protocol);
    }
    Ok(headers)
}

/// The protocols that `Upgrade` names.
fn protocols(values: &[HeaderValue]) -> impl Iterator<Item = &[u8]> {
    values
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

// === impl OriginStream ===

impl AsyncRead for OriginStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for OriginStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
