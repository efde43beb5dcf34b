//! A request's header section, read strictly: whatever two servers could understand differently is
//! refused (RFC 9112). Pure; no sockets.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::mem::MaybeUninit;

/// The most fields that the parser has room for; the limit in force may be lower.
const MAX_FIELDS: usize = 256;

/// A request's header section.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// Path and query, raw.
    pub target: PathAndQuery,
    /// Host and port as the visitor wrote them.
    pub authority: HeaderValue,
    /// `true` for HTTP/1.1, `false` for HTTP/1.0.
    pub http11: bool,
    /// All fields as they came, `Host` included.
    pub headers: HeaderMap,
    /// How the content is delimited.
    pub framing: Framing,
    /// Whether the connection may serve another request after this one.
    pub keep_alive: bool,
    /// Whether the visitor waits for `100 Continue` before it sends content.
    pub expects_continue: bool,
    /// Whether the visitor asks for another protocol.
    pub upgrade: bool,
}

/// How a request's content is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No content.
    None,
    /// So many bytes; at least one.
    Length(u64),
    /// `chunked`.
    Chunked,
}

/// Why a header section is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP, or ambiguous; the text says what.
    #[error("{0}")]
    Bad(&'static str),
    /// Too many bytes or fields.
    #[error("the header section is larger than this edge takes")]
    TooLarge,
    /// The request line alone is too long.
    #[error("the request target is longer than this edge takes")]
    TargetTooLong,
    /// An expectation other than `100-continue`.
    #[error("only the expectation 100-continue is understood")]
    Expectation,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("only HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here")]
    Version,
}

/// How far a search for a header section's end came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed; start again at `resume`.
    Partial {
        /// The start of the first line that is not complete.
        resume: usize,
    },
    /// The section ends before this index, its empty line included.
    End(usize),
}

/// Looks for the empty line. `from` is 0, or the last answer's `resume`. Refuses bare LF at once:
/// a sender of it may mean another end than we see (RFC 9112 section 2.2 lets a recipient choose).
///
/// # Errors
/// A line that does not end in CRLF.
pub fn scan(bytes: &[u8], from: usize) -> Result<Scan, HeadError> {
    let mut start = from;
    while let Some(offset) = bytes.get(start..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let line_feed = start + offset;
        if offset == 0 || bytes.get(line_feed - 1) != Some(&b'\r') {
            return Err(HeadError::Bad("a line of the header section does not end in CRLF"));
        }
        if offset == 1 && start > 0 {
            return Ok(Scan::End(line_feed + 1));
        }
        start = line_feed + 1;
    }
    Ok(Scan::Partial { resume: start })
}

/// Parses a whole header section, `bytes` ending with its empty line.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(bytes: &Bytes, max_fields: usize, max_target: usize) -> Result<Head, HeadError> {
    // Not filled before it is parsed into: clearing room for the most fields costs more than a
    // request of a few takes to read.
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadError::Bad("incomplete header section")),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => return Err(bad_version(bytes)),
        Err(_) => return Err(HeadError::Bad("not a valid HTTP/1.1 header section")),
    }
    if request.headers.len() > max_fields {
        return Err(HeadError::TooLarge);
    }
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadError::Bad("the method is not a token"))?;
    let http11 = request.version == Some(1);
    let headers = collect(bytes, request.headers)?;
    let raw_target = request.path.unwrap_or_default();
    if raw_target.len() > max_target {
        return Err(HeadError::TargetTooLong);
    }
    let (target, authority) = target(bytes, raw_target, &method, &headers, http11)?;
    let framing = framing(&headers, http11)?;
    let expects_continue = expectation(&headers, http11)?;
    let keep_alive = keep_alive(&headers, http11);
    let upgrade = http11 && framing == Framing::None && asks_upgrade(&headers);
    Ok(Head {
        method,
        target,
        authority,
        http11,
        headers,
        framing,
        keep_alive,
        expects_continue,
        upgrade,
    })
}

fn bad_version(bytes: &[u8]) -> HeadError {
    let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    let three_parts = line.iter().filter(|b| **b == b' ').count() == 2;
    if three_parts && version.starts_with(b"HTTP/") && version.len() == 8 {
        HeadError::Version
    } else {
        HeadError::Bad("not an HTTP request line")
    }
}

fn collect(bytes: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadError::Bad("a field name is not a token"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .map_err(|_| HeadError::Bad("a field value holds a control character"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Path and query, and the authority that the request is for (RFC 9112 sections 3.2 and 3.3).
fn target(
    bytes: &Bytes,
    raw: &str,
    method: &Method,
    headers: &HeaderMap,
    http11: bool,
) -> Result<(PathAndQuery, HeaderValue), HeadError> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.clone()),
        (Some(_), Some(_)) => return Err(HeadError::Bad("more than one Host field")),
        (None, _) if http11 => return Err(HeadError::Bad("no Host field")),
        (None, _) => None,
    };
    if !raw.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b'#') {
        return Err(HeadError::Bad("the request target holds a character that is not allowed"));
    }
    if raw == "*" && method == Method::OPTIONS {
        let host = host.ok_or(HeadError::Bad("no Host field"))?;
        return Ok((PathAndQuery::from_static("*"), checked_host(host)?));
    }
    let (path, absolute) = if raw.starts_with('/') {
        (raw, None)
    } else {
        let (authority, path) = absolute_form(raw)?;
        (path, Some(authority))
    };
    let authority = match (absolute, host) {
        (Some(authority), Some(host))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            return Err(HeadError::Bad("Host and the request target name different hosts"));
        }
        (Some(authority), _) => HeaderValue::from_str(authority)
            .map_err(|_| HeadError::Bad("the request target's host is not valid"))?,
        (None, Some(host)) => host,
        (None, None) => return Err(HeadError::Bad("no Host field")),
    };
    let path =
        if path.is_empty() { Bytes::from_static(b"/") } else { bytes.slice_ref(path.as_bytes()) };
    let path = PathAndQuery::from_maybe_shared(path)
        .map_err(|_| HeadError::Bad("the request target is not a valid path"))?;
    Ok((path, checked_host(authority)?))
}

fn absolute_form(raw: &str) -> Result<(&str, &str), HeadError> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let head = raw.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| raw.get(scheme.len()..)).flatten()
    });
    let rest = rest.ok_or(HeadError::Bad("the request target is neither a path nor a URL"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.starts_with('?') {
        return Err(HeadError::Bad("the request target has a query without a path"));
    }
    Ok((authority, path))
}

/// A host is a registered name or an address, with an optional port (RFC 9110 section 7.2); user
/// information has no place in it.
fn checked_host(host: HeaderValue) -> Result<HeaderValue, HeadError> {
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || host.len() > 300 || !host.as_bytes().iter().all(|b| allowed(*b)) {
        return Err(HeadError::Bad("the Host field is not a host name"));
    }
    Ok(host)
}

fn framing(headers: &HeaderMap, http11: bool) -> Result<Framing, HeadError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(HeadError::Bad("more than one Content-Length"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if !http11 || length.is_some() || codings.next().is_some() {
            return Err(HeadError::Bad(
                "Transfer-Encoding beside Content-Length, twice or in HTTP/1.0",
            ));
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::Bad("Transfer-Encoding other than \"chunked\""));
        }
        return Ok(Framing::Chunked);
    }
    match length {
        None => Ok(Framing::None),
        Some(value) => match decimal(value.as_bytes()) {
            Some(0) => Ok(Framing::None),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(HeadError::Bad("Content-Length is not a number")),
        },
    }
}

/// Digits alone; no sign, no space, no list.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 18 || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    bytes.iter().try_fold(0u64, |sum, b| sum.checked_mul(10)?.checked_add(u64::from(b - b'0')))
}

fn expectation(headers: &HeaderMap, http11: bool) -> Result<bool, HeadError> {
    match headers.get(EXPECT) {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(http11),
        Some(_) => Err(HeadError::Expectation),
    }
}

fn keep_alive(headers: &HeaderMap, http11: bool) -> bool {
    if has_token(headers, &CONNECTION, "close") {
        return false;
    }
    http11 || has_token(headers, &CONNECTION, "keep-alive")
}

fn asks_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && has_token(headers, &CONNECTION, "upgrade")
}

/// Whether a list-valued field holds a token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, HeadError> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        match scan(&bytes, 0)? {
            Scan::End(end) => parse(&bytes.slice(..end), 100, 8192),
            Scan::Partial { .. } => panic!("incomplete"),
        }
    }

    #[test]
    fn a_plain_request_is_read() {
        let head = head("GET /a/b?c=d HTTP/1.1\r\nHost: Shop.example:80\r\nX: y\r\n\r\n").unwrap();
        assert_eq!(head.target.as_str(), "/a/b?c=d");
        assert_eq!(head.authority, "Shop.example:80");
        assert_eq!(head.framing, Framing::None);
        assert!(head.keep_alive && head.http11 && !head.upgrade && !head.expects_continue);
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        for fields in [
            "Host: a\r\nHost: a\r\n",
            "Host: a@b\r\n",
            "Host: a b\r\n",
            "Host: \r\n",
            "X: y\r\n",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            "Host: a\r\nContent-Length: 1, 1\r\n",
            "Host: a\r\nContent-Length: +1\r\n",
            "Host: a\r\nContent-Length: 0x10\r\n",
            "Host: a\r\nContent-Length: 1_0\r\n",
            "Host: a\r\nContent-Length:\r\n",
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: xchunked\r\n",
            "Host: a\r\nTransfer-Encoding: ,chunked\r\n",
            "Host: a\r\nTransfer-Encoding: chunked, identity\r\n",
            "Host: a\r\nTransfer-Encoding: identity\r\n",
            "Host: a\r\nTransfer-Encoding: chun\x0bked\r\n",
            "Host: a\r\nX : y\r\n",
            "Host: a\r\n X: y\r\n",
            "Host: a\r\nX: a\r\n b\r\n",
            "Host: a\r\nX: a\0b\r\n",
            "Host: a\r\nX: a\rb\r\n",
            "Host: a\nX: y\r\n",
        ] {
            let request = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            assert!(matches!(head(&request), Err(HeadError::Bad(_))), "{fields:?}");
        }
        // The control: the same request with nothing ambiguous passes.
        assert!(head("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n").is_ok());
        assert!(head("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n").is_ok());
    }

    #[test]
    fn request_lines_are_checked() {
        for line in [
            "GET a HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET http://user@a/ HTTP/1.1",
            "GET http://other/ HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "G@T / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /",
        ] {
            let request = format!("{line}\r\nHost: a\r\n\r\n");
            assert!(matches!(head(&request), Err(HeadError::Bad(_))), "{line:?}");
        }
        assert_eq!(head("GET / HTTP/3.0\r\nHost: a\r\n\r\n").unwrap_err(), HeadError::Version);
        let absolute = head("GET http://A/x?y HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(absolute.target.as_str(), "/x?y");
        assert!(head("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn sections_are_found_in_pieces() {
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let end = whole.len() - 4;
        let mut from = 0;
        for cut in 0..end {
            match scan(&whole[..cut], from).unwrap() {
                Scan::Partial { resume } => from = resume,
                Scan::End(_) => panic!("too early at {cut}"),
            }
        }
        assert_eq!(scan(whole, from).unwrap(), Scan::End(end));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let bytes = Bytes::from(bytes);
            if let Ok(Scan::End(end)) = scan(&bytes, 0) {
                let _ = parse(&bytes.slice(..end), 100, 8192);
            }
        }
    }
}
