//! What fuzzing feeds to the cache's parsers of bytes from outside, and what must hold whatever the bytes;
//! shared by the fuzzer and by the crate's tests.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, AGE, CACHE_CONTROL, CONTENT_LOCATION, CONTENT_TYPE, COOKIE,
    DATE, ETAG, EXPIRES, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED,
    PRAGMA, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::sync::Arc;
use verge_cache::accept::{Accepted, Form};
use verge_cache::directives::{
    Directives, MAX_DELTA_SECONDS, RequestDirectives, ResponseDirectives,
};
use verge_cache::freshness::{CDN_CACHE_CONTROL, Input, VERGE_CDN_CACHE_CONTROL, judge};
use verge_cache::key::{Key, KeyRef};
use verge_cache::key_codec::Shared;
use verge_cache::multipart::Multipart;
use verge_cache::range::{ByteRange, ContentRange, RangeSet, Selected};
use verge_cache::tags::{CACHE_TAG, SURROGATE_KEY, Tags};
use verge_cache::vary::{self, Selection, Vary};
use verge_cache::{
    Now, Request, SiteName, compress as compression, conditional as conditions, disk,
};
use verge_config::site::{CachePolicy, Coding, CompressRule, KeyRule, QueryKey};

/// A function that is fed, and whole inputs to start from.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static [u8]]);

/// A record as a file has it: one tag, one block.
const RECORD: &[u8] =
    b"\x04shop\xc8\x01\x11HTTP/1.1 200 OK\r\n\0\x3c\0\0\0\0\0\0\0\0\x01\x01a\0\0\0\x01\x07";

/// All of them.
pub const ALL: &[Target] = &[
    ("range", range, &[b"bytes=0-9,500-599,-1", b"bytes=18446744073709551615-", b"bytes=-0,1-"]),
    ("content_range", content_range, &[b"bytes 0-9/100", b"bytes 5-9/*", b"bytes */100"]),
    (
        "cache_control",
        cache_control,
        &[
            b"max-age=60, s-maxage=\"5\", private=\"set-cookie, x\", no-cache, must-understand",
            b"stale-while-revalidate=1,stale-if-error=99999999999,public\nThu, 01 Jan 1970 00:00:00 GMT",
            b"max-stale, min-fresh=1, only-if-cached\nThursday, 01-Jan-70 00:00:00 GMT\n17",
        ],
    ),
    (
        "structured",
        structured,
        &[
            b"max-age=60, a=(1 2;b \"c\");d=?0, e=:Zm9v:, f=%\"%c3\", g=@12, h=-1.5, i=tok/en",
            b"no-cache=\"set-cookie\", *a;x=1",
        ],
    ),
    (
        "vary",
        vary,
        &[
            b"accept-encoding, accept-language, x-other\ngzip;q=0.5, br;q=1.000, *;q=0\nde, en;q=0.7",
            b"*\nidentity;q=0, x-gzip\n\nbar",
        ],
    ),
    ("key", key, &[b"\x01\0\0\0\0", b"/p?a=1&b=2&a=3\nlang=de; x=\"y\"\nmobile\nshop.example"]),
    (
        "conditional",
        conditional,
        &[
            b"\"a\"\nW/\"a\", \"b,c\", *\n\"a\"\nSun, 06 Nov 1994 08:49:37 GMT",
            b"W/\"a--br\"\n\"a--zstd\"\nSun Nov  6 08:49:37 1994\nSun, 06 Nov 1994 08:49:38 GMT",
        ],
    ),
    (
        "compress",
        compress,
        &[b"br;q=0.9, gzip\ntext/html; charset=utf-8\n\"tag\"\nAccept-Language, *\nno-transform"],
    ),
    ("reference", reference, &[b"../a/./b?c#d", b"https://shop.example:443/x/..", b"//h/..;/%2e"]),
    ("record", record, &[RECORD]),
];

/// The lines of an input: each a field's value.
fn lines(data: &[u8]) -> impl Iterator<Item = HeaderValue> + '_ {
    data.split(|byte| *byte == b'\n')
        .map(|line| HeaderValue::from_bytes(line).unwrap_or_else(|_| HeaderValue::from_static("")))
}

/// The lines as the values of these fields; what is over goes to the last of them.
fn fields<const N: usize>(data: &[u8], names: [HeaderName; N]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (index, line) in lines(data).take(64).enumerate() {
        if let Some(name) = names.get(index.min(N - 1)) {
            map.append(name, line);
        }
    }
    map
}

/// `Range`.
pub fn range(data: &[u8]) {
    let single = ByteRange::parse(data);
    let Some(set) = RangeSet::parse(data) else {
        return;
    };
    if let (Some(single), Some(own)) = (single, set.single()) {
        assert_eq!(single, own);
    }
    for length in [0, 1, 1_000, u64::MAX] {
        let parts = match set.resolve(length) {
            Selected::Unsatisfiable => continue,
            Selected::Part(part) => vec![part],
            Selected::Parts(parts) => parts,
        };
        let total: u64 = parts.iter().map(|part| part.length()).sum();
        assert!(total <= length && parts.iter().all(|part| part.start <= part.end));
        assert!(parts.iter().all(|part| part.end < length));
        let frame = Multipart::new(parts, length, None, 7);
        assert!(frame.length() >= total);
    }
}

/// `Content-Range`.
pub fn content_range(data: &[u8]) {
    if let Some(range) = ContentRange::parse(data) {
        assert_eq!(ContentRange::parse(range.value().as_bytes()), Some(range));
    }
}

/// `Cache-Control` and what else decides about freshness.
pub fn cache_control(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(Directives::new(&text).count() <= data.len());
    let headers = fields(data, [CACHE_CONTROL, EXPIRES, AGE, DATE, LAST_MODIFIED, VARY, PRAGMA]);
    let request = RequestDirectives::of(&headers);
    let response = ResponseDirectives::of(&headers);
    let most = |seconds: Option<u64>| seconds.is_none_or(|seconds| seconds <= MAX_DELTA_SECONDS);
    assert!(most(request.max_age) && most(request.max_stale) && most(request.min_fresh));
    assert!(most(response.max_age) && most(response.s_maxage));
    weigh(&headers);
}

/// Judges a response and follows its age.
fn weigh(headers: &HeaderMap) {
    let now = Now { mono: 5, wall: 784_111_777 };
    let (policy, none) = (CachePolicy::default(), HeaderMap::new());
    for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::PARTIAL_CONTENT] {
        let (request, received) = (&none, now);
        let policy = &policy;
        let judgement =
            judge(&Input { status, headers, request, policy, requested: now, received });
        let freshness = judgement.freshness;
        assert!(freshness.lifetime <= MAX_DELTA_SECONDS);
        for mono in [0, 5, u64::MAX] {
            assert!(!freshness.is_fresh(mono) || freshness.staleness_ms(mono) == 0);
            assert!(!freshness.is_fresh(mono) || freshness.ttl(mono) > 0);
            let _ = freshness.age(mono);
        }
    }
}

/// Targeted fields, which are Structured Fields.
pub fn structured(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(members) = verge_cache::structured::dictionary(&text) {
        assert!(members.len() <= data.len());
    }
    for name in [CDN_CACHE_CONTROL, VERGE_CDN_CACHE_CONTROL] {
        weigh(&fields(data, [name]));
    }
}

/// `Vary`, and selecting fields in their normal form.
pub fn vary(data: &[u8]) {
    let other = HeaderName::from_static("x-other");
    let headers = fields(data, [VARY, ACCEPT_ENCODING, ACCEPT_LANGUAGE, other]);
    let _ = Tags::of(&headers, &[]);
    // The normal form is its own.
    let accepted = vary::accept_encoding(&headers);
    let again = HeaderValue::try_from(accepted.clone())
        .map(|value| vary::accept_encoding(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)])));
    assert!(again.is_ok_and(|again| again == accepted));
    if let Vary::Fields(names) = vary::parse(&headers) {
        for selection in [
            Selection::of(&names, &headers),
            Selection::of(&names, &headers).in_form_of(&Coding::ALL, &headers),
        ] {
            assert!(selection.matches(&headers) && selection.same(&selection.like(&headers)));
            let _ = (selection.describe(), selection.weight());
        }
    }
}

/// Keys of requests, and keys as bytes.
pub fn key(data: &[u8]) {
    let mut shared = Shared::default();
    if let Some((key, rest)) = Key::decode(data, &mut shared) {
        assert!(rest.len() < data.len());
        round_trip(&key, &mut shared);
    }
    let (target, more) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => data.split_at(at),
        None => (data, &[][..]),
    };
    let target = String::from_utf8_lossy(target);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*target, None),
    };
    let device = HeaderName::from_static("x-device");
    let headers = fields(more, [CACHE_TAG, COOKIE, device.clone(), SURROGATE_KEY]);
    let _ = Tags::of(&headers, &[]);
    let rule = KeyRule::new(QueryKey::Sort, vec![device], vec!["lang".to_owned()]);
    let policy = Arc::new(CachePolicy { key: Arc::new(rule), ..CachePolicy::default() });
    let site = SiteName::from("shop");
    let key = KeyRef::of(&Request {
        site: &site,
        scheme: "https",
        host: "shop.example",
        path,
        query,
        method: &Method::GET,
        headers: &headers,
        policy: &policy,
    });
    let kept = key.keep();
    assert!(kept.is(&key) && kept.path() == path);
    round_trip(&kept, &mut shared);
}

fn round_trip(key: &Key, shared: &mut Shared) {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    let again = Key::decode(&bytes, shared);
    assert!(again.is_some_and(|(again, rest)| again == *key && rest.is_empty()));
}

/// Conditions, dates and entity-tags.
pub fn conditional(data: &[u8]) {
    let names = [ETAG, IF_NONE_MATCH, IF_RANGE, IF_MODIFIED_SINCE, LAST_MODIFIED, DATE];
    let mut headers = fields(data, names);
    let _ = conditions::evaluate(&headers, &headers);
    let _ = conditions::if_range_holds(&headers, &headers);
    let _ = verge_cache::methods::head_update(&headers, StatusCode::OK, &headers);
    for line in lines(data) {
        if let Some(seconds) = verge_cache::date::parse(&line) {
            let written = verge_cache::date::format(seconds);
            assert_eq!(verge_cache::date::parse(&written), Some(seconds));
        }
    }
    compression::restore_conditions(&mut headers);
}

/// Which form a response gets, and its fields.
pub fn compress(data: &[u8]) {
    let names = [ACCEPT_ENCODING, CONTENT_TYPE, ETAG, VARY, CACHE_CONTROL];
    let headers = fields(data, names);
    let rule = CompressRule::default();
    let chosen = compression::choose(Some(&rule), &headers, StatusCode::OK, &headers, None);
    let form = Accepted::of(&headers).form(&rule.codings);
    assert!(chosen.is_none_or(|chosen| chosen == form));
    for form in [form, Form::Identity, Form::Coded(Coding::Gzip)] {
        let mut once = headers.clone();
        compression::apply(&mut once, form);
        let mut twice = once.clone();
        compression::apply(&mut twice, form);
        assert_eq!(once, twice);
    }
}

/// References in `Location` and `Content-Location`.
pub fn reference(data: &[u8]) {
    let headers = fields(data, [CONTENT_LOCATION]);
    let (site, policy) = (SiteName::from("shop"), Arc::default());
    let request = Request {
        site: &site,
        scheme: "https",
        host: "shop.example",
        path: "/a/b",
        query: Some("c"),
        method: &Method::POST,
        headers: &headers,
        policy: &policy,
    };
    let text = String::from_utf8_lossy(data);
    if let Some(target) = verge_cache::reference::resolve(&text, &request) {
        assert!(target.path.starts_with('/'));
        assert!(!target.path.contains("/../") && !target.path.contains("/./"));
    }
}

/// What lies behind the content of a file on disk.
pub fn record(data: &[u8]) {
    assert!(!disk::record::is_end(data, data.len() as u64) || data.len() > 40);
    let written = disk::record::written_again(data);
    assert!(data != RECORD || written.is_some(), "the seed is a record");
    let Some((end, size)) = written else { return };
    assert!(disk::record::is_end(&end, size), "what is written is read");
    assert!(!disk::record::is_end(&end, size + 1), "and is of one size only");
    for at in [0, end.len() / 2, end.len() - 1] {
        let mut damaged = end.clone();
        damaged[at] ^= 1;
        assert!(!disk::record::is_end(&damaged, size), "every byte is under a checksum");
    }
}
