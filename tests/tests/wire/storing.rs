//! What may be stored (RFC 9111 section 3), which of its fields (3.1), and which of several stored
//! responses is chosen (4 and 4.1).

use super::lab::{Case, FRESH, Fields, HOST, Lab, NO_STORE, Want};
use verge_tests::Turn;

const NONE: Fields = &[];
const SECRET: Fields = &[("Authorization", "Bearer one")];

/// Section 3, and the directives of responses that forbid or allow storing (5.2.2).
const STORED: &[Case] = &[
    ("fresh", NONE, 200, FRESH, NONE, Want::Reused),
    ("no-store", NONE, 200, &[("Cache-Control", "no-store, max-age=60")], NONE, Want::Asked),
    ("no-store-case", NONE, 200, &[("cache-control", "max-age=60, No-Store")], NONE, Want::Asked),
    (
        "no-store-second-line",
        NONE,
        200,
        &[("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")],
        NONE,
        Want::Asked,
    ),
    ("no-store-of-request", &[("Cache-Control", "no-store")], 200, FRESH, NONE, Want::Asked),
    ("private", NONE, 200, &[("Cache-Control", "private, max-age=60")], NONE, Want::Asked),
    (
        "private-s-maxage",
        NONE,
        200,
        &[("Cache-Control", "private, s-maxage=60")],
        NONE,
        Want::Asked,
    ),
    (
        "private-expires",
        NONE,
        200,
        &[("Cache-Control", "private"), ("Expires", "@+60")],
        NONE,
        Want::Asked,
    ),
    // A directive inside a quoted string is none.
    (
        "quoted-no-store",
        NONE,
        200,
        &[("Cache-Control", "x=\"no-store\", max-age=60")],
        NONE,
        Want::Reused,
    ),
    (
        "quoted-comma",
        NONE,
        200,
        &[("Cache-Control", "x=\"a, no-store, b\", max-age=60")],
        NONE,
        Want::Reused,
    ),
    (
        "quoted-escape",
        NONE,
        200,
        &[("Cache-Control", "x=\"a\\\", no-store, b\", max-age=60")],
        NONE,
        Want::Reused,
    ),
    // 5.2.3: what is not known is passed over.
    ("extension", NONE, 200, &[("Cache-Control", "foo, max-age=60, bar=baz")], NONE, Want::Reused),
    ("not-no-store", NONE, 200, &[("Cache-Control", "no-storex, max-age=60")], NONE, Want::Reused),
    ("not-private", NONE, 200, &[("Cache-Control", "x-private, max-age=60")], NONE, Want::Reused),
    ("empty-members", NONE, 200, &[("Cache-Control", ",, max-age=60 ,,")], NONE, Want::Reused),
    // 3.5: Authorization.
    ("authorized", SECRET, 200, &[("Cache-Control", "max-age=60")], SECRET, Want::Asked),
    ("authorized-other", SECRET, 200, &[("Cache-Control", "max-age=60")], NONE, Want::Asked),
    ("authorized-expires", SECRET, 200, &[("Expires", "@+60")], NONE, Want::Asked),
    (
        "authorized-public",
        SECRET,
        200,
        &[("Cache-Control", "max-age=60, public")],
        NONE,
        Want::Reused,
    ),
    ("authorized-s-maxage", SECRET, 200, &[("Cache-Control", "s-maxage=60")], NONE, Want::Reused),
    (
        "authorized-must-revalidate",
        SECRET,
        200,
        &[("Cache-Control", "max-age=60, must-revalidate")],
        NONE,
        Want::Reused,
    ),
    (
        "authorized-proxy-revalidate",
        SECRET,
        200,
        &[("Cache-Control", "max-age=60, proxy-revalidate")],
        NONE,
        Want::Asked,
    ),
    (
        "authorized-private-public",
        SECRET,
        200,
        &[("Cache-Control", "max-age=60, public, private")],
        NONE,
        Want::Asked,
    ),
    // 3 and 4.2.2: any final status that is explicitly fresh; heuristics for some alone.
    ("status-201", NONE, 201, FRESH, NONE, Want::Reused),
    ("status-203", NONE, 203, FRESH, NONE, Want::Reused),
    ("status-204", NONE, 204, FRESH, NONE, Want::Reused),
    ("status-299", NONE, 299, FRESH, NONE, Want::Reused),
    ("status-300", NONE, 300, FRESH, NONE, Want::Reused),
    ("status-301", NONE, 301, FRESH, NONE, Want::Reused),
    ("status-302", NONE, 302, FRESH, NONE, Want::Reused),
    ("status-303", NONE, 303, FRESH, NONE, Want::Reused),
    ("status-307", NONE, 307, FRESH, NONE, Want::Reused),
    ("status-308", NONE, 308, FRESH, NONE, Want::Reused),
    ("status-400", NONE, 400, FRESH, NONE, Want::Reused),
    ("status-403", NONE, 403, FRESH, NONE, Want::Reused),
    ("status-404", NONE, 404, FRESH, NONE, Want::Reused),
    ("status-410", NONE, 410, FRESH, NONE, Want::Reused),
    ("status-418", NONE, 418, FRESH, NONE, Want::Reused),
    ("status-499", NONE, 499, FRESH, NONE, Want::Reused),
    ("status-500", NONE, 500, FRESH, NONE, Want::Reused),
    ("status-502", NONE, 502, FRESH, NONE, Want::Reused),
    ("status-503", NONE, 503, FRESH, NONE, Want::Reused),
    ("status-599", NONE, 599, FRESH, NONE, Want::Reused),
    ("status-404-expires", NONE, 404, &[("Expires", "@+60")], NONE, Want::Reused),
    ("status-302-plain", NONE, 302, NONE, NONE, Want::Asked),
    ("status-201-heuristic", NONE, 201, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("status-202-heuristic", NONE, 202, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("status-302-heuristic", NONE, 302, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("status-307-heuristic", NONE, 307, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("status-403-heuristic", NONE, 403, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("status-500-heuristic", NONE, 500, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("status-503-heuristic", NONE, 503, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("status-599-heuristic", NONE, 599, &[("Last-Modified", "@-864000")], NONE, Want::Asked),
    ("heuristic-200", NONE, 200, &[("Last-Modified", "@-864000")], NONE, Want::Reused),
    ("heuristic-404", NONE, 404, &[("Last-Modified", "@-864000")], NONE, Want::Reused),
    ("heuristic-410", NONE, 410, &[("Last-Modified", "@-864000")], NONE, Want::Reused),
    (
        "heuristic-public",
        NONE,
        599,
        &[("Last-Modified", "@-864000"), ("Cache-Control", "public")],
        NONE,
        Want::Reused,
    ),
    // 5.2.2.3: must-understand.
    (
        "must-understand",
        NONE,
        200,
        &[("Cache-Control", "must-understand, no-store, max-age=60")],
        NONE,
        Want::Reused,
    ),
    (
        "must-understand-599",
        NONE,
        599,
        &[("Cache-Control", "must-understand, max-age=60")],
        NONE,
        Want::Asked,
    ),
    (
        "must-understand-599-no-store",
        NONE,
        599,
        &[("Cache-Control", "must-understand, no-store, max-age=60")],
        NONE,
        Want::Asked,
    ),
    // 4.1: Vary that never matches.
    ("vary-star", NONE, 200, &[("Cache-Control", "max-age=60"), ("Vary", "*")], NONE, Want::Asked),
    (
        "vary-star-among",
        NONE,
        200,
        &[("Cache-Control", "max-age=60"), ("Vary", "Foo, *")],
        NONE,
        Want::Asked,
    ),
    (
        "vary-star-second-line",
        NONE,
        200,
        &[("Cache-Control", "max-age=60"), ("Vary", "Foo"), ("Vary", "*")],
        NONE,
        Want::Asked,
    ),
    // 5.2.2.4: no-cache, and 5.2.2.1.
    ("no-cache", NONE, 200, &[("Cache-Control", "no-cache, max-age=60")], NONE, Want::Asked),
    ("no-cache-case", NONE, 200, &[("Cache-Control", "max-age=60, NO-CACHE")], NONE, Want::Asked),
    (
        "no-cache-s-maxage",
        NONE,
        200,
        &[("Cache-Control", "s-maxage=60, no-cache")],
        NONE,
        Want::Asked,
    ),
    // What cookies and queries change: nothing, when the response says that it is fresh.
    (
        "set-cookie",
        NONE,
        200,
        &[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")],
        NONE,
        Want::Reused,
    ),
    ("cookie", NONE, 200, FRESH, &[("Cookie", "a=b")], Want::Reused),
    ("query?a=1&b=2", NONE, 200, FRESH, NONE, Want::Reused),
];

pub(crate) async fn what_is_stored(lab: &Lab) {
    lab.run(STORED).await;

    // A response to HEAD holds no content that could answer a GET.
    lab.script.plan("/head-first", [Turn::new(200, FRESH, "1"), Turn::new(200, FRESH, "2")]);
    let head = lab.ask("HEAD", "/head-first", &[]).await;
    lab.same("head-first", (head.status, head.body.len()), (200, 0), &head);
    let get = lab.get("/head-first").await;
    lab.check("head-first", get.status == 200 && !get.body.is_empty(), format!("{get:?}"));

    // A GET answers HEAD, with the fields of the GET.
    lab.script.plan("/head-after", [Turn::new(200, FRESH, "1"), Turn::new(200, NO_STORE, "2")]);
    let get = lab.get("/head-after").await;
    let head = lab.ask("HEAD", "/head-after", &[]).await;
    lab.same("head-after", lab.script.count("/head-after"), 1, &head);
    lab.same("head-after", head.field("content-length"), get.field("content-length"), &head);
    lab.same("head-after", head.body.len(), 0, &head);

    // A newer response that may not be stored does not leave the old one in force for those who
    // asked for a fresh one: `no-cache` brings the new one, and it is not kept.
    lab.script.plan("/newer", [Turn::new(200, FRESH, "1"), Turn::new(200, FRESH, "2")]);
    lab.get("/newer").await;
    let newer = lab.ask("GET", "/newer", &[("Cache-Control", "no-cache")]).await;
    lab.same("no-cache-replaces", newer.text().as_str(), "2", &newer);
    let after = lab.get("/newer").await;
    lab.same("no-cache-replaces", after.text().as_str(), "2", &after);

    // A response whose Date is missing gets one (RFC 9110 section 6.6.1).
    lab.script.plan("/dateless", [Turn::new(200, FRESH, "1").without_date()]);
    let first = lab.get("/dateless").await;
    lab.check(
        "dateless",
        httpdate::parse_http_date(first.field("date")).is_ok(),
        format!("{first:?}"),
    );
    let second = lab.get("/dateless").await;
    lab.judge_hit(&first, &second);
}

/// Section 3.1.
pub(crate) async fn which_fields(lab: &Lab) {
    let answer: Fields = &[
        ("Cache-Control", "max-age=3600"),
        ("Connection", "A, keep-alive"),
        ("Keep-Alive", "timeout=60"),
        ("A", "of the connection"),
        ("Proxy-Authenticate", "Basic realm=x"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy-Connection", "keep-alive"),
        ("Upgrade", "foo/2"),
        ("B", "of the end"),
        ("Repeated", "one"),
        ("Repeated", "two"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2, c"),
        ("Content-Language", "en"),
        ("Content-Type", "text/x-mine; a=\"b\""),
        ("WWW-Authenticate", "Basic realm=x"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Expires", "@+7200"),
        ("Empty", ""),
        ("X-Obs", "caf\u{e9}"),
    ];
    lab.script.plan("/fields", [Turn::new(200, answer, "1"), Turn::new(200, NO_STORE, "2")]);
    let first = lab.get("/fields").await;
    let hit = lab.get("/fields").await;
    lab.judge_hit(&first, &hit);
    for name in ["a", "keep-alive", "proxy-connection", "proxy-authenticate", "upgrade"] {
        lab.same(&format!("hop-by-hop-{name}"), hit.field(name), "", &hit);
    }
    lab.same("proxy-authentication-info", hit.field("proxy-authentication-info"), "", &hit);
    for (name, value) in [
        ("b", "of the end"),
        ("content-language", "en"),
        ("content-type", "text/x-mine; a=\"b\""),
        ("www-authenticate", "Basic realm=x"),
        ("strict-transport-security", "max-age=1"),
        ("cache-control", "max-age=3600"),
    ] {
        lab.same(&format!("field-{name}"), hit.field(name), value, &hit);
        lab.same(&format!("field-{name}"), first.field(name), value, &first);
    }
    lab.same("field-expires", hit.field("expires"), first.field("expires"), &hit);
    lab.check("field-empty", hit.headers.contains_key("empty"), format!("{hit:?}"));
    let bytes = hit.headers.get("x-obs").map(|value| value.as_bytes().to_vec());
    lab.same("field-bytes", bytes, Some("caf\u{e9}".as_bytes().to_vec()), &hit);
    let all = |name: &str| -> Vec<String> {
        let values = hit.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap_or_default().to_owned()).collect()
    };
    lab.same("fields-repeated", all("repeated").join(", "), "one, two".to_owned(), &hit);
    lab.same(
        "fields-set-cookie",
        all("set-cookie"),
        vec!["a=1; Path=/".into(), "b=2, c".into()],
        &hit,
    );
    named_fields(lab).await;
}

/// 5.2.2.7 and 5.2.2.4 with field names: those fields are for one recipient, or for validated use only;
/// the rest may be reused.
async fn named_fields(lab: &Lab) {
    for (id, directive) in [
        ("private-field", "max-age=3600, private=\"a, X-Mine\""),
        ("no-cache-field", "max-age=3600, no-cache=\"a, X-Mine\""),
        ("private-field-token", "max-age=3600, private=X-Mine"),
    ] {
        let path = format!("/{id}");
        let fields = [("Cache-Control", directive), ("X-Mine", "secret"), ("B", "2")];
        lab.script.plan(&path, [Turn::new(200, &fields, "1"), Turn::new(200, NO_STORE, "2")]);
        let first = lab.get(&path).await;
        lab.same(id, first.field("x-mine"), "secret", &first);
        let second = lab.get(&path).await;
        lab.same(id, second.field("x-mine"), "", &second);
        lab.check(id, second.text() == "2" || second.field("b") == "2", format!("{second:?}"));
    }
}

/// Section 2 (the key) and RFC 9110 section 4.2.3 (equivalent URIs).
pub(crate) async fn keys(lab: &Lab) {
    for (id, first, second, want) in [
        ("key-host-case", (HOST, "/key1"), ("WIRE.Example", "/key1"), Want::Reused),
        ("key-default-port", (HOST, "/key2"), ("wire.example:80", "/key2"), Want::Reused),
        ("key-other-host", (HOST, "/key3"), ("other.example", "/key3"), Want::Asked),
        ("key-other-port", (HOST, "/key4"), ("wire.example:8080", "/key4"), Want::Asked),
        ("key-trailing-dot-host", (HOST, "/key5"), ("xwire.example", "/key5"), Want::Asked),
    ] {
        let path = first.1;
        lab.script.plan(path, [Turn::new(200, FRESH, "1"), Turn::new(200, NO_STORE, "2")]);
        let stored = lab.ask_host("GET", first.0, path, &[], b"").await;
        let reply = lab.ask_host("GET", second.0, second.1, &[], b"").await;
        lab.judge(id, path, &stored, &reply, want);
    }
    for (id, first, second) in [
        ("key-path-case", "/Key6", "/key6"),
        ("key-query", "/key7?a=1", "/key7?a=2"),
        ("key-query-none", "/key8?a=1", "/key8"),
        ("key-query-empty", "/key9?", "/key9"),
        ("key-query-order", "/key10?a=1&b=2", "/key10?b=2&a=1"),
        ("key-slash", "/key11/", "/key11"),
        ("key-double-slash", "//key12", "/key12"),
        ("key-encoded-slash", "/key13%2Fa", "/key13/a"),
        ("key-query-case", "/key14?A", "/key14?a"),
    ] {
        lab.script.plan(first, [Turn::new(200, FRESH, "1")]);
        lab.script.plan(second, [Turn::new(200, FRESH, "2")]);
        lab.get(first).await;
        let reply = lab.get(second).await;
        lab.same(id, reply.text().as_str(), "2", &reply);
    }
}

/// One request of a case of Vary: its fields, and the body that it is to get.
type Step = (Fields, &'static str);

/// Cases of Vary: the fields of every answer, and the requests. Each answer of the origin has the next
/// number as its body.
const VARY: &[(&str, Fields, &[Step])] = &[
    ("vary-same", &[("Vary", "Foo")], &[(&[("Foo", "1")], "1"), (&[("Foo", "1")], "1")]),
    ("vary-other", &[("Vary", "Foo")], &[(&[("Foo", "1")], "1"), (&[("Foo", "2")], "2")]),
    ("vary-absent-both", &[("Vary", "Foo")], &[(&[], "1"), (&[], "1")]),
    ("vary-absent-then", &[("Vary", "Foo")], &[(&[], "1"), (&[("Foo", "1")], "2")]),
    ("vary-absent-after", &[("Vary", "Foo")], &[(&[("Foo", "1")], "1"), (&[], "2")]),
    ("vary-empty-value", &[("Vary", "Foo")], &[(&[("Foo", "")], "1"), (&[("Foo", "1")], "2")]),
    (
        "vary-both-kept",
        &[("Vary", "Foo")],
        &[
            (&[("Foo", "1")], "1"),
            (&[("Foo", "2")], "2"),
            (&[("Foo", "1")], "1"),
            (&[("Foo", "2")], "2"),
        ],
    ),
    ("vary-name-case", &[("Vary", "fOO")], &[(&[("Foo", "1")], "1"), (&[("foo", "1")], "1")]),
    ("vary-name-case-other", &[("Vary", "FOO")], &[(&[("Foo", "1")], "1"), (&[("foo", "2")], "2")]),
    ("vary-value-case", &[("Vary", "Foo")], &[(&[("Foo", "a")], "1"), (&[("Foo", "A")], "2")]),
    (
        "vary-two",
        &[("Vary", "Foo, Bar")],
        &[
            (&[("Foo", "1"), ("Bar", "1")], "1"),
            (&[("Foo", "1"), ("Bar", "2")], "2"),
            (&[("Bar", "1"), ("Foo", "1")], "1"),
        ],
    ),
    (
        "vary-two-lines",
        &[("Vary", "Foo"), ("Vary", "Bar")],
        &[(&[("Foo", "1"), ("Bar", "1")], "1"), (&[("Foo", "1"), ("Bar", "2")], "2")],
    ),
    // The values of two fields must not run into each other.
    (
        "vary-borders",
        &[("Vary", "Foo, Bar")],
        &[(&[("Foo", "1"), ("Bar", "")], "1"), (&[("Foo", ""), ("Bar", "1")], "2")],
    ),
    (
        "vary-unnamed",
        &[("Vary", "Foo")],
        &[(&[("Foo", "1"), ("Bar", "1")], "1"), (&[("Foo", "1"), ("Bar", "2")], "1")],
    ),
    // Normalising is allowed; what is equivalent by the general rules for lists should match.
    (
        "vary-list-lines",
        &[("Vary", "Foo")],
        &[(&[("Foo", "1"), ("Foo", "2")], "1"), (&[("Foo", "1, 2")], "1")],
    ),
    (
        "vary-list-space",
        &[("Vary", "Foo")],
        &[(&[("Foo", "1,2")], "1"), (&[("Foo", "1,   2")], "1")],
    ),
    (
        "vary-list-order",
        &[("Vary", "Foo")],
        &[(&[("Foo", "1, 2")], "1"), (&[("Foo", "2, 1")], "2")],
    ),
    (
        "vary-lines-order",
        &[("Vary", "Foo")],
        &[(&[("Foo", "1"), ("Foo", "2")], "1"), (&[("Foo", "2"), ("Foo", "1")], "2")],
    ),
    (
        "vary-accept-language",
        &[("Vary", "Accept-Language")],
        &[
            (&[("Accept-Language", "en")], "1"),
            (&[("Accept-Language", "de")], "2"),
            (&[("Accept-Language", "en")], "1"),
        ],
    ),
    (
        "vary-cookie",
        &[("Vary", "Cookie")],
        &[(&[("Cookie", "a=1")], "1"), (&[("Cookie", "a=2")], "2")],
    ),
    (
        "vary-accept-encoding",
        &[("Vary", "Accept-Encoding"), ("Content-Encoding", "x-mine")],
        &[(&[("Accept-Encoding", "x-mine")], "1"), (&[("Accept-Encoding", "x-other")], "2")],
    ),
    ("vary-empty", &[("Vary", "")], &[(&[("Foo", "1")], "1"), (&[("Foo", "2")], "1")]),
    ("vary-commas", &[("Vary", ", Foo ,,")], &[(&[("Foo", "1")], "1"), (&[("Foo", "2")], "2")]),
    (
        "vary-authorization",
        &[("Vary", "Authorization"), ("Cache-Control", "public")],
        &[(&[("Authorization", "a")], "1"), (&[("Authorization", "b")], "2")],
    ),
];

/// Section 4.1.
pub(crate) async fn vary(lab: &Lab) {
    for (id, fields, steps) in VARY {
        let path = format!("/{id}");
        let fields: Vec<_> = FRESH.iter().chain(fields.iter()).copied().collect();
        let turns = (1..=steps.len()).map(|number| Turn::new(200, &fields, number.to_string()));
        lab.script.plan(&path, turns);
        for (request, body) in *steps {
            let reply = lab.ask("GET", &path, request).await;
            lab.same(id, reply.text().as_str(), body, &reply);
        }
    }
    // Of several that match, the most recent by its Date (section 4): a response without Vary, newer
    // than one that matches by Vary, and the other way round.
    let newer: Fields = &[("Cache-Control", "max-age=3600"), ("Date", "@-5")];
    let older: Fields = &[("Cache-Control", "max-age=3600"), ("Date", "@-300"), ("Vary", "Foo")];
    lab.script.plan("/vary-gone", [Turn::new(200, older, "1"), Turn::new(200, newer, "2")]);
    lab.ask("GET", "/vary-gone", &[("Foo", "1")]).await;
    let second = lab.ask("GET", "/vary-gone", &[("Foo", "2")]).await;
    lab.same("vary-gone", second.text().as_str(), "2", &second);
    let third = lab.ask("GET", "/vary-gone", &[("Foo", "1")]).await;
    lab.same("vary-gone", third.text().as_str(), "2", &third);
}

/// RFC 9110 section 15.2: interim responses are passed on, and are no part of what is stored.
pub(crate) async fn interim(lab: &Lab) {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nEarly: yes\r\n\r\n";
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    for (id, bytes) in [
        ("interim-103", hints.to_owned()),
        ("interim-102", processing.to_owned()),
        ("interim-several", format!("{processing}{hints}{hints}")),
    ] {
        let path = format!("/{id}");
        lab.script
            .plan(&path, [Turn::new(200, FRESH, "1").after(&bytes), Turn::new(200, FRESH, "2")]);
        let mut client = lab.edge.client().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.send(request.as_bytes()).await.unwrap();
        let mut heads = Vec::new();
        let last = loop {
            match client.read_head().await {
                Ok((status, fields)) if status < 200 => heads.push((status, fields)),
                other => break other.map(|(status, _)| status).ok(),
            }
        };
        let wanted = bytes.matches("HTTP/1.1").count();
        lab.check(
            id,
            last == Some(200) && heads.len() == wanted,
            format!("{heads:?}, then {last:?}"),
        );
        for (_, fields) in heads.iter().filter(|(status, _)| *status == 103) {
            lab.check(
                id,
                fields.contains_key("link") && fields.contains_key("early"),
                format!("{fields:?}"),
            );
        }
        let hit = lab.get(&path).await;
        lab.check(id, hit.is_hit() && hit.text() == "1", format!("{hit:?}"));
        lab.same(id, (hit.field("early"), hit.field("link")), ("", ""), &hit);
    }
}
