//! Preconditions and ranges answered from the store (RFC 9110 sections 13 and 14, RFC 9111 section
//! 4.3.2), and what validation does to the store (RFC 9111 sections 3.2, 3.3, 3.4, 4.3).

use super::lab::{FRESH, Fields, Lab, NO_STORE};
use verge_tests::{Reply, Turn};

const LM: &str = "Mon, 06 Jan 2025 10:00:00 GMT";
const LM_BEFORE: &str = "Mon, 06 Jan 2025 09:59:59 GMT";
const LM_AFTER: &str = "Mon, 06 Jan 2025 10:00:01 GMT";
const LM_RFC850: &str = "Monday, 06-Jan-25 10:00:00 GMT";
const LM_ASCTIME: &str = "Mon Jan  6 10:00:00 2025";

const TEXT: &str = "0123456789";

/// Stores a response of ten bytes with these fields, for an hour.
async fn store(lab: &Lab, path: &str, status: u16, fields: &[(&str, &str)]) -> Reply {
    let fields: Vec<_> = FRESH.iter().copied().chain(fields.iter().copied()).collect();
    lab.script.plan(path, [Turn::new(status, &fields, TEXT), Turn::new(200, NO_STORE, "asked")]);
    lab.get(path).await
}

const STRONG: Fields = &[("ETag", "\"v1\""), ("Last-Modified", LM)];
const WEAK: Fields = &[("ETag", "W/\"v1\""), ("Last-Modified", LM)];
const DATED: Fields = &[("Last-Modified", LM)];
const BARE: Fields = &[];

/// What is stored, what the request says, and the status that it gets.
const PRECONDITIONS: &[(&str, Fields, Fields, u16)] = &[
    ("inm-same", STRONG, &[("If-None-Match", "\"v1\"")], 304),
    ("inm-weak-of-strong", STRONG, &[("If-None-Match", "W/\"v1\"")], 304),
    ("inm-strong-of-weak", WEAK, &[("If-None-Match", "\"v1\"")], 304),
    ("inm-weak-of-weak", WEAK, &[("If-None-Match", "W/\"v1\"")], 304),
    ("inm-other", STRONG, &[("If-None-Match", "\"v2\"")], 200),
    ("inm-list", STRONG, &[("If-None-Match", "\"a\", W/\"b\" , \"v1\"")], 304),
    ("inm-list-commas", STRONG, &[("If-None-Match", ",\"a\",,\"v1\",")], 304),
    ("inm-lines", STRONG, &[("If-None-Match", "\"a\""), ("If-None-Match", "\"v1\"")], 304),
    ("inm-list-none", STRONG, &[("If-None-Match", "\"a\", \"b\"")], 200),
    ("inm-star", STRONG, &[("If-None-Match", "*")], 304),
    ("inm-star-bare", BARE, &[("If-None-Match", "*")], 304),
    ("inm-case", STRONG, &[("If-None-Match", "\"V1\"")], 200),
    ("inm-comma-inside", &[("ETag", "\"a,b\"")], &[("If-None-Match", "\"a,b\"")], 304),
    ("inm-comma-part", &[("ETag", "\"b\"")], &[("If-None-Match", "\"a,b\"")], 200),
    ("inm-unquoted", STRONG, &[("If-None-Match", "v1")], 200),
    ("inm-unstored", BARE, &[("If-None-Match", "\"v1\"")], 200),
    // If-None-Match goes before If-Modified-Since (RFC 9110 section 13.2.2).
    ("inm-other-ims-same", STRONG, &[("If-None-Match", "\"v2\""), ("If-Modified-Since", LM)], 200),
    (
        "inm-same-ims-before",
        STRONG,
        &[("If-None-Match", "\"v1\""), ("If-Modified-Since", LM_BEFORE)],
        304,
    ),
    ("ims-same", STRONG, &[("If-Modified-Since", LM)], 304),
    ("ims-after", STRONG, &[("If-Modified-Since", LM_AFTER)], 304),
    ("ims-before", STRONG, &[("If-Modified-Since", LM_BEFORE)], 200),
    ("ims-rfc850", DATED, &[("If-Modified-Since", LM_RFC850)], 304),
    ("ims-asctime", DATED, &[("If-Modified-Since", LM_ASCTIME)], 304),
    ("ims-invalid", DATED, &[("If-Modified-Since", "yesterday")], 200),
    ("ims-two", DATED, &[("If-Modified-Since", LM), ("If-Modified-Since", LM)], 200),
    ("ims-future", DATED, &[("If-Modified-Since", "@+3600")], 304),
    // RFC 9111 section 4.3.2: without Last-Modified, the Date is what counts.
    ("ims-date", BARE, &[("If-Modified-Since", "@+3600")], 304),
    ("ims-date-before", BARE, &[("If-Modified-Since", LM)], 200),
    // Not for a cache to judge; that they hold must not make an error.
    ("if-match-same", STRONG, &[("If-Match", "\"v1\"")], 200),
    ("if-match-star", STRONG, &[("If-Match", "*")], 200),
];

pub(crate) async fn preconditions(lab: &Lab) {
    for (id, stored, request, status) in PRECONDITIONS {
        let path = format!("/{id}");
        let first = store(lab, &path, 200, stored).await;
        let reply = lab.ask("GET", &path, request).await;
        lab.same(id, reply.status, *status, &reply);
        match reply.status {
            304 => {
                lab.same(id, reply.body.len(), 0, &reply);
                lab.same(id, lab.script.count(&path), 1, &reply);
                lab.judge_hit(&first, &reply);
                let head = lab.ask("HEAD", &path, request).await;
                lab.same(id, head.status, 304, &head);
            }
            // If-Match may be passed on.
            _ => {
                let good = reply.text() == TEXT || id.starts_with("if-match");
                lab.check(id, good, format!("{reply:?}"));
            }
        }
    }
    // Neither: the moment of receipt counts (RFC 9111 section 4.3.2).
    for (id, since, status) in [("ims-undated", "@+3600", 304), ("ims-undated-before", LM, 200)] {
        let path = format!("/{id}");
        let turns = [Turn::new(200, FRESH, TEXT).without_date(), Turn::new(200, NO_STORE, "asked")];
        lab.script.plan(&path, turns);
        lab.get(&path).await;
        let reply = lab.ask("GET", &path, &[("If-Modified-Since", since)]).await;
        lab.same(id, (reply.status, lab.script.count(&path)), (status, 1), &reply);
    }
    // A condition is nothing to a response that is no success (RFC 9110 section 13.2.1).
    for status in [404, 410, 301, 500] {
        let (id, path) = (format!("inm-of-{status}"), format!("/inm-of-{status}"));
        store(lab, &path, status, STRONG).await;
        for request in
            [[("If-None-Match", "\"v1\"")], [("If-Modified-Since", LM)], [("If-None-Match", "*")]]
        {
            let reply = lab.ask("GET", &path, &request).await;
            lab.same(&id, reply.status, status, &reply);
        }
    }

    // Nothing stored: the visitor's condition is judged all the same, by whoever does it.
    for (id, etag, status) in [("cold-inm-same", "\"v1\"", 304), ("cold-inm-other", "\"v2\"", 200)]
    {
        let path = format!("/{id}");
        let fields: Vec<_> = FRESH.iter().copied().chain([("ETag", "\"v1\"")]).collect();
        lab.script.plan(&path, [Turn::new(200, &fields, TEXT)]);
        let reply = lab.ask("GET", &path, &[("If-None-Match", etag)]).await;
        lab.same(id, reply.status, status, &reply);
        let whole = lab.get(&path).await;
        lab.same(id, (whole.status, whole.text().as_str()), (200, TEXT), &whole);
    }
    // An origin that answers the visitor's condition with 304 leaves nothing that could be a 200.
    let fields: Fields = &[("ETag", "\"v1\""), ("Cache-Control", "max-age=3600")];
    lab.script.plan("/cold-304", [Turn::new(304, fields, ""), Turn::new(200, fields, TEXT)]);
    let reply = lab.ask("GET", "/cold-304", &[("If-None-Match", "\"v1\"")]).await;
    lab.check("cold-304", matches!(reply.status, 304), format!("{reply:?}"));
    let whole = lab.get("/cold-304").await;
    lab.same("cold-304", (whole.status, whole.text().as_str()), (200, TEXT), &whole);
}

/// What is stored, what the request says, the status that it gets, and its content; in a 206 the
/// `Content-Range`, and in a 416 too.
type RangeCase = (&'static str, Fields, Fields, u16, &'static str, &'static str);

const RANGES: &[RangeCase] = &[
    ("range-first", STRONG, &[("Range", "bytes=0-3")], 206, "0123", "bytes 0-3/10"),
    ("range-one", STRONG, &[("Range", "bytes=4-4")], 206, "4", "bytes 4-4/10"),
    ("range-open", STRONG, &[("Range", "bytes=7-")], 206, "789", "bytes 7-9/10"),
    ("range-suffix", STRONG, &[("Range", "bytes=-2")], 206, "89", "bytes 8-9/10"),
    ("range-suffix-large", STRONG, &[("Range", "bytes=-100")], 206, TEXT, "bytes 0-9/10"),
    ("range-last-large", STRONG, &[("Range", "bytes=5-100")], 206, "56789", "bytes 5-9/10"),
    ("range-all", STRONG, &[("Range", "bytes=0-")], 206, TEXT, "bytes 0-9/10"),
    (
        "range-huge-last",
        STRONG,
        &[("Range", "bytes=9-99999999999999999999999")],
        206,
        "9",
        "bytes 9-9/10",
    ),
    ("range-unit-case", STRONG, &[("Range", "Bytes=0-3")], 206, "0123", "bytes 0-3/10"),
    ("range-bare", BARE, &[("Range", "bytes=0-3")], 206, "0123", "bytes 0-3/10"),
    ("range-beyond", STRONG, &[("Range", "bytes=10-")], 416, "", "bytes */10"),
    ("range-beyond-both", STRONG, &[("Range", "bytes=10-20")], 416, "", "bytes */10"),
    ("range-suffix-0", STRONG, &[("Range", "bytes=-0")], 416, "", "bytes */10"),
    // What does not parse is ignored (RFC 9110 section 14.2).
    ("range-backwards", STRONG, &[("Range", "bytes=5-2")], 200, TEXT, ""),
    ("range-unit", STRONG, &[("Range", "lines=0-3")], 200, TEXT, ""),
    ("range-empty", STRONG, &[("Range", "bytes=")], 200, TEXT, ""),
    ("range-dash", STRONG, &[("Range", "bytes=-")], 200, TEXT, ""),
    ("range-letters", STRONG, &[("Range", "bytes=a-b")], 200, TEXT, ""),
    ("range-no-equals", STRONG, &[("Range", "bytes 0-3")], 200, TEXT, ""),
    ("range-negative", STRONG, &[("Range", "bytes=--3")], 200, TEXT, ""),
    // If-Range (RFC 9110 section 13.1.5): the strong comparison.
    (
        "if-range-same",
        STRONG,
        &[("Range", "bytes=0-3"), ("If-Range", "\"v1\"")],
        206,
        "0123",
        "bytes 0-3/10",
    ),
    ("if-range-other", STRONG, &[("Range", "bytes=0-3"), ("If-Range", "\"v2\"")], 200, TEXT, ""),
    ("if-range-weak", WEAK, &[("Range", "bytes=0-3"), ("If-Range", "W/\"v1\"")], 200, TEXT, ""),
    (
        "if-range-strong-of-weak",
        WEAK,
        &[("Range", "bytes=0-3"), ("If-Range", "\"v1\"")],
        200,
        TEXT,
        "",
    ),
    (
        "if-range-weak-of-strong",
        STRONG,
        &[("Range", "bytes=0-3"), ("If-Range", "W/\"v1\"")],
        200,
        TEXT,
        "",
    ),
    (
        "if-range-date",
        STRONG,
        &[("Range", "bytes=0-3"), ("If-Range", LM)],
        206,
        "0123",
        "bytes 0-3/10",
    ),
    (
        "if-range-date-other",
        STRONG,
        &[("Range", "bytes=0-3"), ("If-Range", LM_AFTER)],
        200,
        TEXT,
        "",
    ),
    (
        "if-range-date-before",
        STRONG,
        &[("Range", "bytes=0-3"), ("If-Range", LM_BEFORE)],
        200,
        TEXT,
        "",
    ),
    ("if-range-date-none", BARE, &[("Range", "bytes=0-3"), ("If-Range", LM)], 200, TEXT, ""),
    ("if-range-garbage", STRONG, &[("Range", "bytes=0-3"), ("If-Range", "x")], 200, TEXT, ""),
    (
        "if-range-beyond-other",
        STRONG,
        &[("Range", "bytes=50-"), ("If-Range", "\"v2\"")],
        200,
        TEXT,
        "",
    ),
    // The other preconditions come first (13.2.2).
    ("range-inm-same", STRONG, &[("Range", "bytes=0-3"), ("If-None-Match", "\"v1\"")], 304, "", ""),
    (
        "range-inm-other",
        STRONG,
        &[("Range", "bytes=0-3"), ("If-None-Match", "\"v2\"")],
        206,
        "0123",
        "bytes 0-3/10",
    ),
    ("range-ims-same", STRONG, &[("Range", "bytes=0-3"), ("If-Modified-Since", LM)], 304, "", ""),
];

pub(crate) async fn ranges(lab: &Lab) {
    for (id, stored, request, status, body, content_range) in RANGES {
        let path = format!("/{id}");
        store(lab, &path, 200, stored).await;
        let reply = lab.ask("GET", &path, request).await;
        lab.same(id, reply.status, *status, &reply);
        lab.same(id, reply.field("content-range"), content_range, &reply);
        if *status != 416 {
            lab.same(id, reply.text().as_str(), body, &reply);
        }
        if *status == 206 {
            let length = body.len().to_string();
            lab.same(id, reply.field("content-length"), length.as_str(), &reply);
            // RFC 9110 section 15.3.7.
            for name in ["date", "etag", "cache-control"] {
                let stored = lab.get(&path).await;
                lab.same("range-fields", reply.field(name), stored.field(name), &reply);
            }
        }
        lab.same(id, lab.script.count(&path), 1, &reply);
        // A range is asked of GET alone (14.2).
        if *status == 206 || *status == 416 {
            let head = lab.ask("HEAD", &path, request).await;
            lab.same("range-head", head.status, 200, &head);
            lab.same("range-head", head.field("content-length"), "10", &head);
        }
    }
    // Several ranges: as parts, or all of it; never one of them alone.
    store(lab, "/range-several", 200, STRONG).await;
    let reply = lab.ask("GET", "/range-several", &[("Range", "bytes=0-1,8-9")]).await;
    match reply.status {
        200 => lab.same("range-several", reply.text().as_str(), TEXT, &reply),
        _ => {
            let kind = reply.field("content-type").starts_with("multipart/byteranges");
            // Ranges so near to each other that one part for both is shorter become one (RFC 9110
            // section 15.3.7.2).
            let joined = reply.field("content-range") == "bytes 0-9/10" && reply.text() == TEXT;
            lab.check("range-several", reply.status == 206 && kind != joined, format!("{reply:?}"));
        }
    }
    // No range of what is no success.
    store(lab, "/range-404", 404, STRONG).await;
    let reply = lab.ask("GET", "/range-404", &[("Range", "bytes=0-1")]).await;
    lab.same("range-404", (reply.status, reply.text().as_str()), (404, TEXT), &reply);

    // A part that the origin sent never passes for the whole (RFC 9111 sections 3.3 and 3.4).
    let part: Fields =
        &[("Cache-Control", "max-age=3600"), ("ETag", "\"v1\""), ("Content-Range", "bytes 0-3/10")];
    let whole: Fields = &[("Cache-Control", "max-age=3600"), ("ETag", "\"v2\"")];
    lab.script.plan("/part", [Turn::new(206, part, "0123"), Turn::new(200, whole, "abcdefghij")]);
    let reply = lab.ask("GET", "/part", &[("Range", "bytes=0-3")]).await;
    lab.check(
        "part",
        (reply.status, reply.text().as_str()) == (206, "0123") || reply.text() == "abcd",
        format!("{reply:?}"),
    );
    let reply = lab.get("/part").await;
    lab.same("part", (reply.status, reply.text().as_str()), (200, "abcdefghij"), &reply);
    let reply = lab.ask("GET", "/part", &[("Range", "bytes=2-5")]).await;
    lab.same("part", (reply.status, reply.text().as_str()), (206, "cdef"), &reply);

    // A 206 that nobody asked for is not the whole either.
    lab.script
        .plan("/part-unasked", [Turn::new(206, part, "0123"), Turn::new(200, whole, "abcdefghij")]);
    lab.get("/part-unasked").await;
    let reply = lab.get("/part-unasked").await;
    lab.same("part-unasked", (reply.status, reply.text().as_str()), (200, "abcdefghij"), &reply);
}

/// Stale since a minute when it comes, so that nothing has to be waited for.
pub(super) const STALE: Fields = &[
    ("Cache-Control", "max-age=60"),
    ("Age", "120"),
    ("ETag", "\"v1\""),
    ("Last-Modified", LM),
    ("A", "1"),
    ("B", "1"),
    ("B", "2"),
    ("C", "1"),
    ("Content-Type", "text/plain"),
    ("Expires", "@-60"),
    ("Set-Cookie", "a=1"),
];
/// A 304 that says a lot.
const AGAIN: Fields = &[
    ("Cache-Control", "max-age=3600"),
    ("ETag", "\"v1\""),
    ("A", "new"),
    ("B", "new"),
    ("D", "new"),
    ("Content-Length", "0"),
    ("Expires", "@+3600"),
    ("Set-Cookie", "a=2"),
];
/// Another representation.
pub(super) const OTHER: Fields = &[("Cache-Control", "max-age=3600"), ("ETag", "\"v2\"")];

/// Sections 3.2 and 4.3: what the origin's answer to a validation does.
pub(crate) async fn freshening(lab: &Lab) {
    validators_are_sent(lab).await;
    fields_are_updated(lab).await;
    lifetimes_change(lab).await;
    other_answers(lab).await;
    conditions_meet(lab).await;
}

async fn validators_are_sent(lab: &Lab) {
    // The validators of what is stored are sent.
    for (id, stored, field, value) in [
        ("validate-etag", STRONG, "if-none-match", "\"v1\""),
        ("validate-weak", WEAK, "if-none-match", "W/\"v1\""),
        ("validate-date", DATED, "if-modified-since", LM),
    ] {
        let path = format!("/{id}");
        let fields: Vec<_> =
            [("Cache-Control", "max-age=0")].into_iter().chain(stored.iter().copied()).collect();
        lab.script.plan(&path, [Turn::new(200, &fields, "1"), Turn::new(200, NO_STORE, "2")]);
        lab.get(&path).await;
        let reply = lab.get(&path).await;
        lab.same(id, reply.text().as_str(), "2", &reply);
        let seen = lab.script.seen(&path);
        let sent = seen.get(1).and_then(|seen| seen.headers.get(field)?.to_str().ok());
        lab.check(id, sent == Some(value), format!("{seen:?}"));
    }
}

async fn fields_are_updated(lab: &Lab) {
    let path = "/freshened";
    lab.script.plan(
        path,
        [Turn::new(200, STALE, TEXT), Turn::new(304, AGAIN, ""), Turn::new(599, &[], "")],
    );
    lab.get(path).await;
    for (id, from_store) in [("freshened-response", false), ("freshened-stored", true)] {
        let reply = lab.get(path).await;
        lab.same(id, (reply.status, reply.text().as_str()), (200, TEXT), &reply);
        lab.same(id, reply.is_hit(), from_store, &reply);
        for (name, value) in [
            ("a", "new"),
            ("d", "new"),
            ("c", "1"),
            ("cache-control", "max-age=3600"),
            ("etag", "\"v1\""),
        ] {
            lab.same(&format!("{id}-{name}"), reply.field(name), value, &reply);
        }
        let all = reply.headers.get_all("b").iter().count();
        lab.same(&format!("{id}-b"), (all, reply.field("b")), (1, "new"), &reply);
        lab.same(&format!("{id}-cookie"), reply.field("set-cookie"), "a=2", &reply);
        // 3.2: the length is of the stored content.
        lab.same(&format!("{id}-length"), reply.field("content-length"), "10", &reply);
        let age: u64 = reply.field("age").parse().unwrap_or(0);
        lab.check(&format!("{id}-age"), age < 60, format!("{reply:?}"));
    }
}

async fn lifetimes_change(lab: &Lab) {
    // A lifetime may be shortened; a 304 that says nothing keeps what was said.
    for (id, first, then, third) in [
        ("304-shortens", "max-age=60", Some("max-age=0"), 3),
        ("304-no-cache", "max-age=60", Some("no-cache"), 3),
        ("304-silent", "max-age=60", None, 2),
        ("304-lengthens", "max-age=0", Some("max-age=3600"), 2),
    ] {
        let path = format!("/{id}");
        let age = ("Age", if first == "max-age=60" { "120" } else { "0" });
        let fields = [("Cache-Control", first), ("ETag", "\"v1\""), age];
        let mut again = vec![("ETag", "\"v1\""), ("Age", "0")];
        again.extend(then.map(|value| ("Cache-Control", value)));
        lab.script.plan(&path, [Turn::new(200, &fields, "1"), Turn::new(304, &again, "")]);
        for _ in 0..3 {
            let reply = lab.get(&path).await;
            lab.same(id, (reply.status, reply.text().as_str()), (200, "1"), &reply);
        }
        lab.same(id, lab.script.count(&path), third, &lab.ask("HEAD", "/none", &[]).await);
    }
}

async fn other_answers(lab: &Lab) {
    // A full answer replaces what was stored, and an error does not (4.3.3).
    lab.script.plan(
        "/replaced",
        [Turn::new(200, STALE, "1"), Turn::new(200, OTHER, "2"), Turn::new(599, &[], "")],
    );
    lab.get("/replaced").await;
    for _ in 0..2 {
        let reply = lab.get("/replaced").await;
        lab.same("replaced", (reply.text().as_str(), reply.field("etag")), ("2", "\"v2\""), &reply);
        lab.same("replaced", reply.field("a"), "", &reply);
    }
    lab.script.plan(
        "/error-between",
        [Turn::new(200, STALE, "1"), Turn::new(500, &[], "broken"), Turn::new(304, AGAIN, "")],
    );
    lab.get("/error-between").await;
    let reply = lab.get("/error-between").await;
    lab.same("error-between", (reply.status, reply.text().as_str()), (500, "broken"), &reply);
    let reply = lab.get("/error-between").await;
    lab.same("error-between", (reply.status, reply.text().as_str()), (200, "1"), &reply);
}

async fn conditions_meet(lab: &Lab) {
    // The visitor's own condition while we validate: judged by what is stored then.
    for (id, etag, status) in [("both-same", "\"v1\"", 304), ("both-other", "\"v0\"", 200)] {
        let path = format!("/{id}");
        lab.script.plan(&path, [Turn::new(200, STALE, TEXT), Turn::new(304, AGAIN, "")]);
        lab.get(&path).await;
        let reply = lab.ask("GET", &path, &[("If-None-Match", etag)]).await;
        lab.same(id, reply.status, status, &reply);
        let whole = lab.get(&path).await;
        lab.same(id, (whole.status, whole.text().as_str()), (200, TEXT), &whole);
    }

    // 4.3.5: HEAD that shows another representation makes the stored one unusable without validation;
    // one that shows the same may freshen it.
    let head: Fields =
        &[("Cache-Control", "max-age=3600"), ("ETag", "\"v2\""), ("Content-Length", "3")];
    lab.script.plan("/head-other", [Turn::new(200, STALE, "1"), Turn::new(200, head, "new")]);
    lab.get("/head-other").await;
    lab.ask("HEAD", "/head-other", &[]).await;
    let reply = lab.get("/head-other").await;
    lab.same("head-other", reply.text().as_str(), "new", &reply);
}

/// RFC 9110 section 15.4.5: what a 304 from the store carries, and what it does not.
pub(crate) async fn not_modified_fields(lab: &Lab) {
    let fields: Fields = &[
        ("ETag", "\"v1\""),
        ("Last-Modified", LM),
        ("Content-Location", "/there"),
        ("Expires", "@+3600"),
        ("Vary", "Foo"),
        ("Content-Type", "text/plain"),
        ("Content-Language", "en"),
        ("A", "1"),
    ];
    let first = store(lab, "/304", 200, fields).await;
    let reply = lab.ask("GET", "/304", &[("If-None-Match", "\"v1\"")]).await;
    lab.same("304", reply.status, 304, &reply);
    for name in ["cache-control", "content-location", "date", "etag", "expires", "vary"] {
        lab.same(&format!("304-has-{name}"), reply.field(name), first.field(name), &reply);
    }
    for name in ["content-type", "content-language", "transfer-encoding", "content-range"] {
        lab.same(&format!("304-omits-{name}"), reply.field(name), "", &reply);
    }
    let length = reply.field("content-length");
    lab.check("304-length", length.is_empty() || length == "10", format!("{reply:?}"));
}
