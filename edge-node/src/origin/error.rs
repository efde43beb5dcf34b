//! Every way in which an origin can fail to answer, and what each is called outside; knows no
//! sockets.

use http::StatusCode;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Why there is no (whole) response. What `Display` says is for logs: it may name addresses that a
/// visitor must not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The name has no address.
    #[error("cannot resolve {host}: {cause}")]
    DnsFailed {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: String,
    },
    /// The resolver did not answer in time.
    #[error("resolving {host} took longer than {after:?}")]
    DnsTimeout {
        /// The name.
        host: String,
        /// The time allowed.
        after: Duration,
    },
    /// The name leads to an address that requests may not be sent to.
    #[error("{host} is at {address}, which is {why}: requests may not be sent there")]
    AddressForbidden {
        /// The name or the address as written.
        host: String,
        /// The address.
        address: IpAddr,
        /// What kind of address it is.
        why: &'static str,
    },
    /// The host is not on the allow-list of the handler that asked for it.
    #[error("{host} is not on the allow-list; add it to the handler's `fetch`")]
    HostNotAllowed {
        /// Host and port, as compared.
        host: String,
    },
    /// Nothing listens there.
    #[error("connection to {address} refused")]
    ConnectionRefused {
        /// The address.
        address: SocketAddr,
    },
    /// The connection could not be made for another reason.
    #[error("cannot connect to {host}: {cause}")]
    ConnectFailed {
        /// The host.
        host: String,
        /// What the system said.
        cause: String,
    },
    /// Resolve, TCP and TLS took too long together.
    #[error("connecting to {host} took longer than {after:?}")]
    ConnectTimeout {
        /// The host.
        host: String,
        /// The time allowed.
        after: Duration,
    },
    /// The certificate is not one for this host by an authority that is trusted.
    #[error("the certificate of {host} was refused: {cause}")]
    CertificateRefused {
        /// The host.
        host: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The TLS handshake failed for another reason.
    #[error("TLS with {host} failed: {cause}")]
    TlsFailed {
        /// The host.
        host: String,
        /// What went wrong.
        cause: String,
    },
    /// As many requests as may be are under way to this origin already.
    #[error("{limit} requests are under way to this origin already")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The request was sent and no header section came back in time.
    #[error("no response within {after:?}")]
    FirstByteTimeout {
        /// The time allowed.
        after: Duration,
    },
    /// The content stopped arriving.
    #[error("the response's content stopped for {after:?}")]
    BetweenBytesTimeout {
        /// The time allowed.
        after: Duration,
    },
    /// The connection ended before a response.
    #[error("the connection ended before a response: {cause}")]
    ClosedEarly {
        /// What was seen.
        cause: String,
    },
    /// The connection ended before the content was whole.
    #[error("the response ended before it was whole: {cause}")]
    Incomplete {
        /// What was seen.
        cause: String,
    },
    /// The response's header section is larger than is accepted.
    #[error("the response's header section is too large")]
    HeadTooLarge,
    /// What came back is not HTTP as RFC 9110 to 9113 have it.
    #[error("not a valid response: {what}")]
    Protocol {
        /// What is wrong with it.
        what: String,
    },
    /// The request's own content failed: the visitor's or the handler's fault.
    #[error("the request's content failed: {cause}")]
    RequestBody {
        /// What was seen.
        cause: String,
    },
    /// The request cannot be sent as it is: the handler's fault.
    #[error("not a request that can be sent: {what}")]
    InvalidRequest {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The request has been through this edge already (RFC 8586).
    #[error("the request came back to this edge")]
    LoopDetected,
}

impl OriginError {
    /// The status of the response that the edge makes of it: 502 and 504, 503 when the limit of
    /// requests is reached, 508 for a loop, 400 and 403 when the asker is at fault.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            OriginError::DnsTimeout { .. }
            | OriginError::ConnectTimeout { .. }
            | OriginError::FirstByteTimeout { .. }
            | OriginError::BetweenBytesTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            OriginError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            OriginError::LoopDetected => StatusCode::LOOP_DETECTED,
            OriginError::RequestBody { .. } | OriginError::InvalidRequest { .. } => {
                StatusCode::BAD_REQUEST
            }
            OriginError::HostNotAllowed { .. } => StatusCode::FORBIDDEN,
            OriginError::DnsFailed { .. }
            | OriginError::AddressForbidden { .. }
            | OriginError::ConnectionRefused { .. }
            | OriginError::ConnectFailed { .. }
            | OriginError::CertificateRefused { .. }
            | OriginError::TlsFailed { .. }
            | OriginError::ClosedEarly { .. }
            | OriginError::Incomplete { .. }
            | OriginError::HeadTooLarge
            | OriginError::Protocol { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// The error type for `Proxy-Status` (RFC 9209 section 2.3).
    #[must_use]
    pub fn proxy_status_error(&self) -> &'static str {
        match self {
            OriginError::DnsFailed { .. } => "dns_error",
            OriginError::DnsTimeout { .. } => "dns_timeout",
            OriginError::AddressForbidden { .. } => "destination_ip_prohibited",
            OriginError::HostNotAllowed { .. } => "http_request_denied",
            OriginError::ConnectionRefused { .. } => "connection_refused",
            OriginError::ConnectFailed { .. } => "destination_ip_unroutable",
            OriginError::ConnectTimeout { .. } => "connection_timeout",
            OriginError::CertificateRefused { .. } => "tls_certificate_error",
            OriginError::TlsFailed { .. } => "tls_protocol_error",
            OriginError::Busy { .. } => "connection_limit_reached",
            OriginError::FirstByteTimeout { .. } => "http_response_timeout",
            OriginError::BetweenBytesTimeout { .. } => "connection_read_timeout",
            OriginError::ClosedEarly { .. } => "connection_terminated",
            OriginError::Incomplete { .. } => "http_response_incomplete",
            OriginError::HeadTooLarge => "http_response_header_section_size",
            OriginError::Protocol { .. } => "http_protocol_error",
            OriginError::RequestBody { .. } | OriginError::InvalidRequest { .. } => {
                "http_request_error"
            }
            OriginError::LoopDetected => "proxy_loop_detected",
        }
    }

    /// Whether the origin itself is at fault, so that a stale response may stand in for it
    /// (RFC 5861 section 4) and its address is worth avoiding for a while.
    #[must_use]
    pub fn is_origin_fault(&self) -> bool {
        !matches!(
            self,
            OriginError::RequestBody { .. }
                | OriginError::InvalidRequest { .. }
                | OriginError::HostNotAllowed { .. }
                | OriginError::LoopDetected
        )
    }

    /// The origin error behind `error`, however deep it is wrapped.
    #[must_use]
    pub fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e OriginError> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<OriginError>() {
                return Some(found);
            }
            // An I/O error skips over what it was made from.
            let made_from = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
            next = match made_from {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

/// How far a response had come when hyper failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waiting for its header section.
    Head,
    /// Reading its content.
    Content,
}

/// What a failure of hyper's means.
pub(super) fn from_hyper(error: &hyper::Error, stage: Stage) -> OriginError {
    if error.is_parse_too_large() {
        return OriginError::HeadTooLarge;
    }
    if error.is_parse() {
        return OriginError::Protocol { what: error.to_string() };
    }
    let source = std::error::Error::source(error);
    let cause = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    if let Some(h2) = source.and_then(|source| source.downcast_ref::<h2::Error>()) {
        let reason = h2.reason();
        let gone = h2.is_io()
            || reason == Some(h2::Reason::REFUSED_STREAM)
            || (h2.is_go_away() && reason == Some(h2::Reason::NO_ERROR));
        return if gone { ended(cause, stage) } else { OriginError::Protocol { what: cause } };
    }
    if let Some(io) = source.and_then(|source| source.downcast_ref::<std::io::Error>()) {
        use std::io::ErrorKind::{InvalidData, InvalidInput};
        if matches!(io.kind(), InvalidData | InvalidInput) {
            return OriginError::Protocol { what: cause };
        }
    }
    ended(cause, stage)
}

fn ended(cause: String, stage: Stage) -> OriginError {
    match stage {
        Stage::Head => OriginError::ClosedEarly { cause },
        Stage::Content => OriginError::Incomplete { cause },
    }
}
