//! Responses for visitors out of stored objects and arriving ones: conditions, ranges, HEAD, `Age` and
//! `Cache-Status`. Decides nothing about the store.

use crate::api::{Body, Outcome, Request, Response};
use crate::cache_status::{CACHE_STATUS, CacheStatus};
use crate::conditional::{self, Condition};
use crate::fill::{Head, Reader, Reading};
use crate::multipart::Multipart;
use crate::object::{Span, StoredObject};
use crate::range::{ByteRange, ContentRange, Part, RangeSet, Selected};
use crate::slices::{self, Available};
use crate::tier::Held;
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HeaderName, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;

/// What a visitor gets of a representation.
enum Choice {
    /// What is there.
    Whole,
    /// 304.
    NotModified,
    /// 206: these bytes.
    Part(Part),
    /// 206 with several parts.
    Parts(Multipart),
    /// 416.
    Unsatisfiable,
}

/// The longest content of several parts that is put together in memory.
const MAX_PARTS_BYTES: u64 = 64 * 1024 * 1024;

/// What of a stored response's content is needed to answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needed {
    Nothing,
    /// Wherever it can be sent from.
    Content,
    /// In memory, to be put together in another way.
    Bytes,
}

/// An answer out of a stored object, before its content is there.
pub(crate) struct Prepared {
    headers: HeaderMap,
    status: StatusCode,
    available: Available,
    choice: Choice,
    empty: bool,
}

impl Prepared {
    /// What of the object the request gets.
    pub(crate) fn of(request: &Request<'_>, object: &StoredObject) -> Prepared {
        let (headers, available) = (object.headers(), Available::of(object));
        let choice = choice(request, object.status, &headers, Some(available));
        let empty = *request.method == Method::HEAD || object.is_empty();
        Prepared { headers, status: object.status, available, choice, empty }
    }

    /// What of the content it needs.
    pub(crate) fn needs(&self) -> Needed {
        match self.choice {
            _ if self.empty => Needed::Nothing,
            Choice::NotModified | Choice::Unsatisfiable => Needed::Nothing,
            Choice::Whole | Choice::Part(_) => Needed::Content,
            Choice::Parts(_) => Needed::Bytes,
        }
    }

    /// The answer, with the content that it needs.
    pub(crate) fn with(
        self,
        held: Option<Held>,
        age: u64,
        (status, outcome): (&CacheStatus, Outcome),
    ) -> Response {
        let available = self.available;
        let mut headers = with_status(self.headers, status);
        headers.insert(AGE, HeaderValue::from(age));
        let code = apply(&self.choice, self.status, Some(available), &mut headers);
        let body = match (self.choice, held) {
            (_, None) => Body::Empty,
            (Choice::NotModified | Choice::Unsatisfiable, _) => Body::Empty,
            (Choice::Whole, Some(held)) => held.body(None),
            (Choice::Part(Part { start, end }), Some(held)) => {
                held.body(Some((start - available.start, end - available.start)))
            }
            (Choice::Parts(frame), Some(held)) => parts(&frame, held),
        };
        Response { status: code, headers, body, outcome }
    }
}

/// Content with several parts.
fn parts(frame: &Multipart, held: Held) -> Body {
    let Held::Bytes(content) = held else { return Body::Empty };
    let mut out = Vec::new();
    for (index, part) in frame.parts().iter().enumerate() {
        out.extend_from_slice(&frame.head(index));
        out.extend_from_slice(&crate::tier::slice(&content, part.start, part.end));
    }
    out.extend_from_slice(&frame.end());
    Body::Whole(out.into())
}

/// The answer out of a fill whose content is on its way.
pub(crate) fn from_head(
    request: &Request<'_>,
    head: &Head,
    reader: Reader,
    age: u64,
    (status, outcome): (&CacheStatus, Outcome),
) -> Response {
    let mut headers = with_status(head.fields.visible.clone(), status);
    if !status.collapsed {
        headers.extend(head.fields.personal.clone());
    }
    if head.stored || age > 0 {
        headers.insert(AGE, HeaderValue::from(age));
    }
    let complete = reader.complete();
    let length = head.length.or_else(|| Some(complete.as_ref()?.len() as u64));
    let suffix = matches!(slices::single(request.headers), Some(ByteRange::Last(_)));
    let available = length.and_then(|len| match head.span {
        // The source's own answer to a range that it was asked for as it is.
        Some(_) if suffix && !status.collapsed => None,
        None if head.status == StatusCode::PARTIAL_CONTENT => None,
        None => Some(Available { start: 0, len, total: Some(len) }),
        Some(Span { start, total }) => Some(Available { start, len, total }),
    });
    let choice = match choice(request, head.status, &head.fields.visible, available) {
        // Several parts are put together out of what is stored only.
        Choice::Parts(_) => Choice::Whole,
        choice => choice,
    };
    let code = apply(&choice, head.status, available, &mut headers);
    let start = available.map_or(0, |available| available.start);
    let body = match (choice, complete) {
        (Choice::NotModified | Choice::Unsatisfiable, _) => Body::Empty,
        _ if request.method == Method::HEAD || bodiless(head.status) => Body::Empty,
        (Choice::Part(Part { start: first, end }), Some(content)) => {
            Body::Whole(crate::tier::slice(&content, first - start, end - start))
        }
        (Choice::Part(Part { start, end }), None) => stream(reader, Some((start, end))),
        (Choice::Whole | Choice::Parts(_), Some(content)) => Body::Whole(content),
        (Choice::Whole | Choice::Parts(_), None) => stream(reader, None),
    };
    Response { status: code, headers, body, outcome }
}

fn stream(reader: Reader, part: Option<(u64, u64)>) -> Body {
    Body::Stream(Reading::new(reader, part).boxed_unsync())
}

/// The answer with a range that is put together from slices.
pub(crate) fn from_slices(
    headers: HeaderMap,
    (part, total): (Part, u64),
    plan: crate::api::StreamBody,
    (status, outcome): (&CacheStatus, Outcome),
) -> Response {
    let mut headers = with_status(headers, status);
    let available = Available { start: part.start, len: part.length(), total: Some(total) };
    let code =
        apply(&Choice::Part(part), StatusCode::PARTIAL_CONTENT, Some(available), &mut headers);
    Response { status: code, headers, body: Body::Stream(plan), outcome }
}

/// Whether a status never has content.
pub(crate) fn bodiless(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// Fields with our member appended to `Cache-Status` (RFC 9211 section 2).
pub(crate) fn with_status(mut headers: HeaderMap, status: &CacheStatus) -> HeaderMap {
    headers.append(CACHE_STATUS, status.value());
    headers
}

/// The order of RFC 9110 section 13.2.2: conditions first, then the range.
fn choice(
    request: &Request<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    available: Option<Available>,
) -> Choice {
    if status != StatusCode::OK && status != StatusCode::PARTIAL_CONTENT {
        return Choice::Whole;
    }
    if conditional::evaluate(request.headers, headers) == Condition::NotModified {
        return Choice::NotModified;
    }
    let range = request.headers.get(RANGE).filter(|_| request.method == Method::GET);
    let (Some(range), Some(available)) = (range, available) else { return Choice::Whole };
    if request.headers.get_all(RANGE).iter().count() > 1
        || !conditional::if_range_holds(request.headers, headers)
    {
        return Choice::Whole;
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let part = slices::single(request.headers).and_then(|range| available.resolve(range));
        return part.filter(|part| available.holds(*part)).map_or(Choice::Whole, Choice::Part);
    }
    match RangeSet::parse(range.as_bytes()).map(|set| set.resolve(available.len)) {
        None => Choice::Whole,
        Some(Selected::Unsatisfiable) => Choice::Unsatisfiable,
        Some(Selected::Part(part)) => Choice::Part(part),
        Some(Selected::Parts(_)) if available.len > MAX_PARTS_BYTES => Choice::Whole,
        Some(Selected::Parts(parts)) => {
            let kind = headers.get(CONTENT_TYPE);
            Choice::Parts(Multipart::new(parts, available.len, kind, random()))
        }
    }
}

/// What no content can know beforehand.
fn random() -> u128 {
    let half = || u128::from(ahash::RandomState::new().hash_one(0u8));
    (half() << 64) | half()
}

/// Makes status and fields those of the part.
fn apply(
    choice: &Choice,
    status: StatusCode,
    available: Option<Available>,
    headers: &mut HeaderMap,
) -> StatusCode {
    let length = available.map(|available| available.len);
    match choice {
        Choice::Whole => {
            if bodiless(status) {
                headers.remove(CONTENT_LENGTH);
            } else if let Some(length) = length {
                crate::fields::with_length(headers, status, length);
            }
            status
        }
        Choice::NotModified => {
            // Metadata of the content, which the visitor has (RFC 9110 section 15.4.5).
            const METADATA: [HeaderName; 5] =
                [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE];
            for name in METADATA {
                headers.remove(name);
            }
            StatusCode::NOT_MODIFIED
        }
        Choice::Part(part) => {
            if let Some(available) = available {
                headers.insert(CONTENT_RANGE, available.content_range(*part));
            }
            headers.insert(CONTENT_LENGTH, HeaderValue::from(part.length()));
            StatusCode::PARTIAL_CONTENT
        }
        Choice::Parts(frame) => {
            headers.insert(CONTENT_TYPE, frame.content_type());
            headers.insert(CONTENT_LENGTH, HeaderValue::from(frame.length()));
            StatusCode::PARTIAL_CONTENT
        }
        Choice::Unsatisfiable => {
            let whole = length.unwrap_or_default();
            headers.insert(CONTENT_RANGE, ContentRange::Unsatisfied { whole }.value());
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            StatusCode::RANGE_NOT_SATISFIABLE
        }
    }
}
