//! Compression of what the source sent uncompressed: whether and how, what it does to the fields, and how
//! entity-tags stay honest; pure.

use crate::accept::{Accepted, Form};
use crate::directives::Directives;
use crate::vary;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use verge_config::site::{Coding, CompressRule};

/// Decides for a response. `length` is what is known of its content: all of it, or how much has been seen
/// of content that has not ended; nothing known counts as long enough. `None`: it is not ours to
/// compress, and its fields stay as they are.
#[must_use]
pub fn choose(
    rule: Option<&CompressRule>,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    length: Option<u64>,
) -> Option<Form> {
    let rule = rule?;
    // 206 and 416 speak of bytes of the form that the source has.
    let has_content = !matches!(status.as_u16(), 100..=199 | 204 | 205 | 206 | 304 | 416);
    if !has_content || length.is_some_and(|length| length < rule.min) {
        return None;
    }
    if response.contains_key(CONTENT_ENCODING)
        || response.contains_key(CONTENT_RANGE)
        || no_transform(response)
        || no_transform(request)
    {
        return None;
    }
    let content_type = response.get(CONTENT_TYPE)?.to_str().ok()?;
    rule.takes(content_type).then(|| Accepted::of(request).form(&rule.codings))
}

/// RFC 9110 section 7.7, RFC 9111 section 5.2.2.6: content that must not be changed.
fn no_transform(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|line| {
        Directives::new(&vary::text(line))
            .any(|(name, _)| name.eq_ignore_ascii_case("no-transform"))
    })
}

/// Makes a response's fields those of its form. Doing it again changes nothing, so that it can be done to
/// what a 304 has been merged into.
pub fn apply(headers: &mut HeaderMap, form: Form) {
    vary_by_coding(headers);
    let Form::Coded(coding) = form else { return };
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    // Of the uncompressed content, all of them. (RFC 9530: a Repr-Digest is of the coded content too.)
    for name in ["content-md5", "digest", "content-digest", "repr-digest"] {
        headers.remove(name);
    }
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    if let Some(tag) = headers.get(ETAG).and_then(|tag| coded_etag(tag, coding)) {
        headers.insert(ETAG, tag);
    }
}

fn vary_by_coding(headers: &mut HeaderMap) {
    let has = headers.get_all(VARY).iter().any(|line| {
        line.as_bytes().split(|byte| *byte == b',').any(|member| {
            let member = member.trim_ascii();
            member == b"*" || member.eq_ignore_ascii_case(b"accept-encoding")
        })
    });
    if has {
        return;
    }
    // One line for all, since not every cache downstream reads a second one.
    let mut lines: Vec<&[u8]> = headers.get_all(VARY).iter().map(HeaderValue::as_bytes).collect();
    lines.push(b"Accept-Encoding");
    if let Ok(value) = HeaderValue::from_bytes(&lines.join(&b", "[..])) {
        headers.insert(VARY, value);
    }
}

/// The entity-tag of a compressed form: of a strong one, with the coding behind it, since it is of other
/// bytes (RFC 9110 section 8.8.3.3). A weak one stays: it is of what the content means. `None` when
/// there is nothing to change.
fn coded_etag(tag: &HeaderValue, coding: Coding) -> Option<HeaderValue> {
    let opaque = tag.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if parted(opaque).is_some() {
        return None;
    }
    let mut coded = Vec::with_capacity(opaque.len() + 8);
    coded.extend_from_slice(b"\"");
    coded.extend_from_slice(opaque);
    coded.extend_from_slice(b"--");
    coded.extend_from_slice(coding.name().as_bytes());
    coded.extend_from_slice(b"\"");
    HeaderValue::from_bytes(&coded).ok()
}

/// What stands before our suffix.
fn parted(opaque: &[u8]) -> Option<&[u8]> {
    Coding::ALL
        .iter()
        .find_map(|coding| opaque.strip_suffix(coding.name().as_bytes())?.strip_suffix(b"--"))
}

/// The source's entity-tag of one that [`apply`] made; `None` when it made none like this.
#[must_use]
pub fn origin_etag(tag: &HeaderValue) -> Option<HeaderValue> {
    let opaque = tag.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut origin = vec![b'"'];
    origin.extend_from_slice(parted(opaque)?);
    origin.push(b'"');
    HeaderValue::from_bytes(&origin).ok()
}

/// Puts the source's own entity-tags into the conditions of a request that goes to it.
pub fn restore_conditions(request: &mut HeaderMap) {
    for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE] {
        restore(request, &name);
    }
}

fn restore(request: &mut HeaderMap, name: &HeaderName) {
    let lines: Vec<HeaderValue> = request.get_all(name).iter().cloned().collect();
    let restored: Vec<Option<HeaderValue>> = lines.iter().map(restored_line).collect();
    if restored.iter().all(Option::is_none) {
        return;
    }
    request.remove(name);
    for (line, restored) in lines.into_iter().zip(restored) {
        request.append(name.clone(), restored.unwrap_or(line));
    }
}

/// A line with the source's tags; `None` when there are none of ours in it.
fn restored_line(line: &HeaderValue) -> Option<HeaderValue> {
    let mut changed = false;
    let members: Vec<Vec<u8>> = crate::conditional::list_members(line.as_bytes())
        .map(|member| {
            let member = member.trim_ascii();
            let tag = HeaderValue::from_bytes(member).ok().and_then(|tag| origin_etag(&tag));
            changed |= tag.is_some();
            tag.map_or_else(|| member.to_vec(), |tag| tag.as_bytes().to_vec())
        })
        .collect();
    changed.then(|| HeaderValue::from_bytes(&members.join(&b", "[..])).ok())?
}
