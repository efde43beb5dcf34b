//! Parts of representations: what is asked of the source for a range of something that is not stored,
//! what a 206 holds, and long ranges put together slice by slice (RFC 9110 section 14, RFC 9111 sections
//! 3.3 and 3.4). Each slice is an object of its own under a key of its own.

use crate::api::{BoxError, Request, Source, SourceResponse, StreamBody};
use crate::cache::Inner;
use crate::cache_status::Forward;
use crate::conditional;
use crate::directives::RequestDirectives;
use crate::error::BodyError;
use crate::fill::{Progress, Reader};
use crate::key::KeyRef;
use crate::lookup::{Ask, Lookup, lookup};
use crate::object::{Span, StoredObject};
use crate::range::{ByteRange, ContentRange, Part, Resolved};
use crate::site_name::SiteName;
use crate::start::{Joined, Need};
use bytes::Bytes;
use futures::stream;
use http::header::{CONTENT_RANGE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody as Frames};
use std::borrow::Cow;
use std::sync::Arc;
use verge_config::site::CachePolicy;

/// The length of a slice.
pub(crate) const SLICE_BYTES: u64 = 1024 * 1024;
/// How often a slice is looked for before it is given up.
const ROUNDS: usize = 3;

/// The part that a source is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    range: HeaderValue,
    /// The validator of the slices before it.
    of: Option<HeaderValue>,
}

/// Bytes of a representation that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Available {
    pub(crate) start: u64,
    /// How many.
    pub(crate) len: u64,
    /// The length of the whole, where it is known.
    pub(crate) total: Option<u64>,
}

/// A long range, to be put together.
pub(crate) struct Plan {
    inner: Arc<Inner>,
    source: Arc<dyn Source>,
    site: SiteName,
    scheme: String,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    policy: Arc<CachePolicy>,
    of: HeaderValue,
    total: u64,
    /// The next byte to be given, and the last.
    next: u64,
    last: u64,
}

// === impl Asked ===

impl Asked {
    /// What to ask for when nothing of a representation is known: the slice in which the range begins,
    /// or a suffix as it is, since nobody knows where it begins. `None` when the whole is the better
    /// thing to ask for.
    pub(crate) fn cold(headers: &HeaderMap) -> Option<Asked> {
        // What `If-Range` does not hold for needs the whole.
        if headers.contains_key(IF_RANGE) {
            return None;
        }
        Some(match single(headers)? {
            ByteRange::Last(_) => Asked { range: headers.get(RANGE)?.clone(), of: None },
            ByteRange::Between(start, _) | ByteRange::From(start) => {
                Asked::slice(start / SLICE_BYTES, None)
            }
        })
    }

    fn slice(index: u64, of: Option<HeaderValue>) -> Asked {
        let start = index.saturating_mul(SLICE_BYTES);
        let end = start.saturating_add(SLICE_BYTES - 1);
        let range = HeaderValue::try_from(format!("bytes={start}-{end}"));
        Asked { range: range.unwrap_or_else(|_| HeaderValue::from_static("bytes=0-")), of }
    }

    /// Whether an answer may be stored under the key of what was asked for: of one slice of a certain
    /// representation, only just that.
    pub(crate) fn is_answered_by(&self, span: Option<Span>, headers: &HeaderMap) -> bool {
        let Some(of) = &self.of else { return true };
        let start = match ByteRange::parse(self.range.as_bytes()) {
            Some(ByteRange::Between(start, _)) => start,
            _ => return false,
        };
        span.is_some_and(|span| span.start == start)
            && conditional::strong_validator(headers).as_ref() == Some(of)
    }

    /// Puts it into a request's fields.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(RANGE, self.range.clone());
        match &self.of {
            Some(of) => headers.insert(IF_RANGE, of.clone()),
            None => headers.remove(IF_RANGE),
        };
    }
}

/// The one range of a request, where it has just one.
pub(crate) fn single(headers: &HeaderMap) -> Option<ByteRange> {
    let mut lines = headers.get_all(RANGE).iter();
    let only = lines.next()?;
    if lines.next().is_some() { None } else { ByteRange::parse(only.as_bytes()) }
}

/// Which bytes a 206 holds. Where the length of its content contradicts its `Content-Range`, the content
/// is believed, and a range that claimed to reach the end of the whole still does.
pub(crate) fn span_of(response: &SourceResponse, length: &mut Option<u64>) -> Option<Span> {
    if response.status != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let mut lines = response.headers.get_all(CONTENT_RANGE).iter();
    let ContentRange::Part { part, whole } = ContentRange::parse(lines.next()?.as_bytes())? else {
        return None;
    };
    if lines.next().is_some() {
        return None;
    }
    let len = *length.get_or_insert(part.length());
    let reaches_end = whole == Some(part.end.saturating_add(1));
    let total = if reaches_end { part.start.checked_add(len) } else { whole };
    Some(Span { start: part.start, total })
}

// === impl Available ===

impl Available {
    /// What a stored response holds.
    pub(crate) fn of(object: &StoredObject) -> Available {
        let len = object.len();
        match &object.span {
            None => Available { start: 0, len, total: Some(len) },
            Some(span) => Available { start: span.start, len, total: span.total },
        }
    }

    /// The bytes that a range asks for, as far as that is known.
    pub(crate) fn resolve(&self, range: ByteRange) -> Option<Part> {
        match (self.total, range) {
            (Some(total), range) => match range.resolve(total) {
                Resolved::Part { start, end } => Some(Part { start, end }),
                Resolved::Unsatisfiable => None,
            },
            (None, ByteRange::Between(start, end)) => Some(Part { start, end }),
            (None, ByteRange::From(_) | ByteRange::Last(_)) => None,
        }
    }

    /// Whether all of a part is there.
    pub(crate) fn holds(&self, part: Part) -> bool {
        self.start <= part.start && part.end < self.start.saturating_add(self.len)
    }

    /// Whether a part begins there.
    pub(crate) fn begins(&self, part: Part) -> bool {
        self.holds(Part { start: part.start, end: part.start })
    }

    /// `Content-Range` of a part.
    pub(crate) fn content_range(&self, part: Part) -> HeaderValue {
        ContentRange::Part { part, whole: self.total }.value()
    }
}

/// Whether a stored part is all that the request asks for.
pub(crate) fn answers(object: &StoredObject, request: &Request<'_>) -> bool {
    let available = Available::of(object);
    *request.method == Method::GET
        && single(request.headers)
            .and_then(|range| available.resolve(range))
            .is_some_and(|part| available.holds(part))
        && (!request.headers.contains_key(IF_RANGE)
            || conditional::if_range_holds(request.headers, &object.headers()))
}

/// The part that the request asks for of what a stored part is of, when it can be put together.
pub(crate) fn extends(object: &StoredObject, request: &Request<'_>) -> Option<(Part, HeaderValue)> {
    let headers = object.headers();
    if *request.method != Method::GET
        || (request.headers.contains_key(IF_RANGE)
            && !conditional::if_range_holds(request.headers, &headers))
    {
        return None;
    }
    let available = Available::of(object);
    // What is short is asked for as a whole, and combined with what is there.
    available.total.filter(|total| *total > SLICE_BYTES)?;
    let part = available.resolve(single(request.headers)?)?;
    Some((part, conditional::strong_validator(&headers)?))
}

// === impl Plan ===

impl Plan {
    /// The plan for `part` of a representation of `total` bytes.
    pub(crate) fn new(
        inner: &Arc<Inner>,
        source: &Arc<dyn Source>,
        request: &Request<'_>,
        (part, total, of): (Part, u64, HeaderValue),
    ) -> Plan {
        let mut headers = request.headers.clone();
        for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE] {
            headers.remove(name);
        }
        Plan {
            inner: Arc::clone(inner),
            source: Arc::clone(source),
            site: request.site.clone(),
            scheme: request.scheme.to_owned(),
            host: request.host.to_owned(),
            path: request.path.to_owned(),
            query: request.query.map(str::to_owned),
            headers,
            policy: Arc::clone(request.policy),
            of,
            total,
            next: part.start,
            last: part.end,
        }
    }

    /// The content, of which `first` is there already.
    pub(crate) fn body(mut self, first: Bytes) -> StreamBody {
        self.next += first.len() as u64;
        let first = (!first.is_empty()).then(|| Ok(Frame::data(first)));
        let rest = stream::unfold(Some(self), |plan| async move {
            let mut plan = plan.filter(|plan| plan.next <= plan.last)?;
            match plan.piece().await {
                Ok(piece) => Some((Ok(Frame::data(piece)), Some(plan))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Frames::new(futures::StreamExt::chain(stream::iter(first), rest)).boxed_unsync()
    }

    /// What the next slice has of the part.
    async fn piece(&mut self) -> Result<Bytes, BoxError> {
        let index = self.next / SLICE_BYTES;
        let start = index * SLICE_BYTES;
        let slice = self.slice(index).await?;
        let last = (start + SLICE_BYTES - 1).min(self.last);
        let piece = crate::tier::slice(&slice, self.next - start, last - start);
        if piece.len() as u64 != last - self.next + 1 {
            return Err(Box::new(BodyError::Changed));
        }
        self.next = last + 1;
        Ok(piece)
    }

    /// One slice whole, from the store or from the source.
    async fn slice(&self, index: u64) -> Result<Bytes, BoxError> {
        let asked = Asked::slice(index, Some(self.of.clone()));
        let mut headers = self.headers.clone();
        headers.insert(RANGE, asked.range.clone());
        let request = Request {
            site: &self.site,
            scheme: &self.scheme,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &Method::GET,
            headers: &headers,
            policy: &self.policy,
        };
        let mut key = KeyRef::of(&request);
        let of = String::from_utf8_lossy(self.of.as_bytes());
        let extras = key.extras.as_deref().unwrap_or_default();
        // No extras of a rule have a tab: such a key is no request's.
        key.extras = Some(Cow::Owned(format!("{extras}\tslice={index};of={of}")));
        let hash = key.hash(&self.inner.hasher);
        let ask = Ask { request, key, hash, directives: RequestDirectives::default() };
        for _ in 0..ROUNDS {
            let mono = self.inner.settings.clock.mono();
            let expected = Span { start: index * SLICE_BYTES, total: Some(self.total) };
            if let Lookup::Fresh(object) = lookup(&self.inner.store, &ask, mono) {
                if object.span.as_deref() != Some(&expected) {
                    return Err(Box::new(BodyError::Changed));
                }
                match self.inner.store.bytes(&object).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(_) => self.inner.forget(hash, &object),
                }
            }
            let need = Need::part(Forward::Partial, asked.clone());
            match self.inner.join_or_start(&ask, &need, &self.source, false) {
                Joined::Leader(reader) | Joined::Follower(reader) => {
                    return self.read(reader, index).await;
                }
                Joined::Stored(_) => {}
            }
        }
        Err(Box::new(BodyError::Abandoned))
    }

    /// Reads a slice that is on its way, if it is of the representation that was begun with.
    async fn read(&self, reader: Reader, index: u64) -> Result<Bytes, BoxError> {
        let head = match reader.progress().await {
            Progress::Head(head) => head,
            Progress::Failed(error) => return Err(Box::new(BodyError::Source(error))),
            Progress::Object(..) | Progress::Waiting => return Err(Box::new(BodyError::Changed)),
        };
        let start = index * SLICE_BYTES;
        let expected = Span { start, total: Some(self.total) };
        let of = conditional::strong_validator(&head.fields.visible);
        if head.span != Some(expected) || of.as_ref() != Some(&self.of) {
            return Err(Box::new(BodyError::Changed));
        }
        let most = usize::try_from(SLICE_BYTES).unwrap_or(usize::MAX);
        let body = http_body_util::Limited::new(crate::fill::Reading::new(reader, None), most);
        Ok(body.collect().await?.to_bytes())
    }
}

/// One body behind another.
pub(crate) fn chain(first: StreamBody, rest: StreamBody) -> StreamBody {
    let both = futures::StreamExt::chain(
        http_body_util::BodyStream::new(first),
        http_body_util::BodyStream::new(rest),
    );
    Frames::new(both).boxed_unsync()
}

/// Parts of one representation, put together where they meet.
pub(crate) struct Combined {
    span: Span,
    content: Bytes,
}

/// The longest content that parts are put together to, in bytes.
const MAX_JOINED_BYTES: u64 = 8 * SLICE_BYTES;

impl Combined {
    pub(crate) fn new(span: Span, content: Bytes) -> Combined {
        Combined { span, content }
    }

    /// Takes another part in, if it meets what is there and agrees on the length of the whole.
    pub(crate) fn add(&mut self, span: Span, content: &Bytes) {
        let (own_end, other_end) =
            (self.span.start + self.content.len() as u64, span.start + content.len() as u64);
        let agrees = match (self.span.total, span.total) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        let meets = span.start <= own_end && self.span.start <= other_end;
        let start = self.span.start.min(span.start);
        if !agrees || !meets || own_end.max(other_end) - start > MAX_JOINED_BYTES {
            return;
        }
        let before = self.span.start.saturating_sub(span.start);
        let head = content.slice(..usize::try_from(before).unwrap_or(0).min(content.len()));
        let behind = own_end.saturating_sub(span.start);
        let tail =
            content.slice(usize::try_from(behind).unwrap_or(usize::MAX).min(content.len())..);
        let total = self.span.total.or(span.total);
        self.content = [&head[..], &self.content[..], &tail[..]].concat().into();
        self.span = Span { start, total };
    }

    /// What it has come to: all of it when there is no span.
    pub(crate) fn into_parts(self) -> (Option<Span>, Bytes) {
        let whole = self.span.start == 0 && self.span.total == Some(self.content.len() as u64);
        ((!whole).then_some(self.span), self.content)
    }
}
