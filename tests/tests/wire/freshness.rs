//! How long a response is fresh (RFC 9111 section 4.2), what targeted fields change (RFC 9213), and the
//! ages that are told (4.2.3).

use super::lab::{Case, FRESH, Fields, Lab, NO_STORE, Want};
use verge_tests::Turn;

const NONE: Fields = &[];

/// A case whose requests carry nothing: id, fields of the first answer, what a second request gets.
type Lifetime = (&'static str, Fields, Want);

async fn run(lab: &Lab, cases: &[Lifetime]) {
    let cases: Vec<Case> =
        cases.iter().map(|(id, fields, want)| (*id, NONE, 200, *fields, NONE, *want)).collect();
    lab.run(&cases).await;
}

/// Sections 4.2.1, 4.2.3, 5.2.2 and 5.3.
const LIFETIMES: &[Lifetime] = &[
    ("nothing-said", &[], Want::Asked),
    ("max-age", &[("Cache-Control", "max-age=60")], Want::Reused),
    ("max-age-0", &[("Cache-Control", "max-age=0")], Want::Asked),
    ("max-age-case", &[("Cache-Control", "MAX-age=60")], Want::Reused),
    ("max-age-quoted", &[("Cache-Control", "max-age=\"60\"")], Want::Reused),
    ("max-age-leading-zeros", &[("Cache-Control", "max-age=0060")], Want::Reused),
    ("max-age-31-bits", &[("Cache-Control", "max-age=2147483648")], Want::Reused),
    ("max-age-64-bits", &[("Cache-Control", "max-age=18446744073709551616")], Want::Reused),
    (
        "max-age-huge",
        &[("Cache-Control", "max-age=99999999999999999999999999999999")],
        Want::Reused,
    ),
    ("max-age-negative", &[("Cache-Control", "max-age=-1")], Want::Asked),
    ("max-age-fraction", &[("Cache-Control", "max-age=1.5")], Want::Asked),
    ("max-age-letters", &[("Cache-Control", "max-age=60s")], Want::Asked),
    ("max-age-no-number", &[("Cache-Control", "max-age=abc")], Want::Asked),
    ("max-age-bare", &[("Cache-Control", "max-age")], Want::Asked),
    ("max-age-empty", &[("Cache-Control", "max-age=")], Want::Asked),
    ("max-age-single-quotes", &[("Cache-Control", "max-age='60'")], Want::Asked),
    // Invalid freshness information makes stale; it does not hand over to Expires.
    (
        "max-age-invalid-expires",
        &[("Cache-Control", "max-age=abc"), ("Expires", "@+60")],
        Want::Asked,
    ),
    ("max-age-twice-0-first", &[("Cache-Control", "max-age=0, max-age=60")], Want::Asked),
    (
        "max-age-two-lines-0-first",
        &[("Cache-Control", "max-age=0"), ("Cache-Control", "max-age=60")],
        Want::Asked,
    ),
    ("max-age-over-expires", &[("Cache-Control", "max-age=60"), ("Expires", "@-60")], Want::Reused),
    ("max-age-over-expires-0", &[("Cache-Control", "max-age=60"), ("Expires", "0")], Want::Reused),
    ("max-age-0-over-expires", &[("Cache-Control", "max-age=0"), ("Expires", "@+60")], Want::Asked),
    ("s-maxage", &[("Cache-Control", "s-maxage=60")], Want::Reused),
    ("s-maxage-over-max-age", &[("Cache-Control", "max-age=0, s-maxage=60")], Want::Reused),
    ("s-maxage-0-over-max-age", &[("Cache-Control", "s-maxage=0, max-age=60")], Want::Asked),
    (
        "s-maxage-over-expires",
        &[("Cache-Control", "s-maxage=60"), ("Expires", "@-60")],
        Want::Reused,
    ),
    ("s-maxage-invalid", &[("Cache-Control", "s-maxage=abc, max-age=60")], Want::Asked),
    ("s-maxage-case", &[("Cache-Control", "S-MaxAge=0, max-age=60")], Want::Asked),
    ("not-max-age", &[("Cache-Control", "x-max-age=60")], Want::Asked),
    // The most restrictive of what contradicts itself.
    ("no-cache-and-max-age", &[("Cache-Control", "max-age=60, no-cache")], Want::Asked),
    ("expires", &[("Expires", "@+60")], Want::Reused),
    ("expires-past", &[("Expires", "@-60")], Want::Asked),
    ("expires-is-date", &[("Expires", "@-0"), ("Date", "@-0")], Want::Asked),
    ("expires-0", &[("Expires", "0")], Want::Asked),
    ("expires-minus-1", &[("Expires", "-1")], Want::Asked),
    ("expires-invalid", &[("Expires", "tomorrow")], Want::Asked),
    ("expires-number", &[("Expires", "3600")], Want::Asked),
    ("expires-invalid-heuristic", &[("Expires", "0"), ("Last-Modified", "@-864000")], Want::Asked),
    ("expires-empty", &[("Expires", ""), ("Last-Modified", "@-864000")], Want::Asked),
    ("expires-utc", &[("Expires", "Mon, 01 Jan 2035 00:00:00 UTC")], Want::Asked),
    ("expires-zone", &[("Expires", "Mon, 01 Jan 2035 00:00:00 +0000")], Want::Asked),
    ("expires-no-zone", &[("Expires", "Mon, 01 Jan 2035 00:00:00")], Want::Asked),
    ("expires-no-comma", &[("Expires", "Mon 01 Jan 2035 00:00:00 GMT")], Want::Asked),
    ("expires-iso", &[("Expires", "2035-01-01T00:00:00Z")], Want::Asked),
    ("expires-1-digit-hour", &[("Expires", "Mon, 01 Jan 2035 0:00:00 GMT")], Want::Asked),
    ("expires-february-30", &[("Expires", "Fri, 30 Feb 2035 00:00:00 GMT")], Want::Asked),
    ("expires-hour-25", &[("Expires", "Mon, 01 Jan 2035 25:00:00 GMT")], Want::Asked),
    ("expires-trailing", &[("Expires", "Mon, 01 Jan 2035 00:00:00 GMT; x")], Want::Asked),
    ("expires-far", &[("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")], Want::Reused),
    ("expires-2038", &[("Expires", "Tue, 19 Jan 2038 14:14:08 GMT")], Want::Reused),
    ("expires-asctime", &[("Expires", "Mon Jan  1 00:00:00 2035")], Want::Reused),
    ("expires-rfc850", &[("Expires", "Monday, 01-Jan-35 00:00:00 GMT")], Want::Reused),
    ("expires-twice-past-first", &[("Expires", "@-60"), ("Expires", "@+60")], Want::Asked),
    // The lifetime is Expires minus Date, not Expires minus the cache's own clock.
    ("expires-before-a-late-date", &[("Expires", "@+60"), ("Date", "@+120")], Want::Asked),
    ("expires-after-an-early-date", &[("Expires", "@-3000"), ("Date", "@-3600")], Want::Asked),
    ("expires-no-date-valid", &[("Expires", "@+60"), ("Date", "yesterday")], Want::Reused),
    // Ages at arrival.
    ("age-below", &[("Cache-Control", "max-age=60"), ("Age", "30")], Want::Reused),
    ("age-above", &[("Cache-Control", "max-age=60"), ("Age", "61")], Want::Asked),
    ("age-is-lifetime", &[("Cache-Control", "max-age=60"), ("Age", "60")], Want::Asked),
    (
        "age-above-s-maxage",
        &[("Cache-Control", "max-age=600, s-maxage=60"), ("Age", "61")],
        Want::Asked,
    ),
    ("age-above-expires", &[("Expires", "@+60"), ("Age", "61")], Want::Asked),
    (
        "age-overflow",
        &[("Cache-Control", "max-age=60"), ("Age", "99999999999999999999")],
        Want::Asked,
    ),
    ("age-invalid", &[("Cache-Control", "max-age=60"), ("Age", "old")], Want::Reused),
    ("age-negative", &[("Cache-Control", "max-age=60"), ("Age", "-100")], Want::Reused),
    ("age-fraction", &[("Cache-Control", "max-age=60"), ("Age", "61.5")], Want::Reused),
    ("age-first-of-list", &[("Cache-Control", "max-age=60"), ("Age", "61, 0")], Want::Asked),
    ("age-first-of-list-0", &[("Cache-Control", "max-age=60"), ("Age", "0, 61")], Want::Reused),
    (
        "age-first-of-lines",
        &[("Cache-Control", "max-age=60"), ("Age", "0"), ("Age", "61")],
        Want::Reused,
    ),
    ("date-old", &[("Cache-Control", "max-age=60"), ("Date", "@-120")], Want::Asked),
    ("date-old-but-fresh", &[("Cache-Control", "max-age=600"), ("Date", "@-120")], Want::Reused),
    ("date-future", &[("Cache-Control", "max-age=60"), ("Date", "@+3600")], Want::Reused),
    ("date-invalid", &[("Cache-Control", "max-age=60"), ("Date", "now")], Want::Reused),
    // 8246 changes nothing of this.
    ("immutable", &[("Cache-Control", "max-age=60, immutable")], Want::Reused),
    ("immutable-alone", &[("Cache-Control", "immutable")], Want::Asked),
    ("immutable-stale", &[("Cache-Control", "max-age=60, immutable"), ("Age", "61")], Want::Asked),
    // Pragma is of requests.
    (
        "pragma-of-response",
        &[("Cache-Control", "max-age=60"), ("Pragma", "no-cache")],
        Want::Reused,
    ),
    ("must-revalidate-fresh", &[("Cache-Control", "max-age=60, must-revalidate")], Want::Reused),
    ("proxy-revalidate-fresh", &[("Cache-Control", "max-age=60, proxy-revalidate")], Want::Reused),
    ("no-transform", &[("Cache-Control", "max-age=60, no-transform")], Want::Reused),
];

pub(crate) async fn lifetimes(lab: &Lab) {
    run(lab, LIFETIMES).await;
}

/// RFC 9213: CDN-Cache-Control, and our own field above it.
const TARGETED: &[Lifetime] = &[
    ("cdn-alone", &[("CDN-Cache-Control", "max-age=60")], Want::Reused),
    (
        "cdn-over-0",
        &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "max-age=0")],
        Want::Reused,
    ),
    (
        "cdn-over-no-store",
        &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-store")],
        Want::Reused,
    ),
    (
        "cdn-over-private",
        &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "private")],
        Want::Reused,
    ),
    (
        "cdn-over-no-cache",
        &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-cache")],
        Want::Reused,
    ),
    ("cdn-over-expires", &[("CDN-Cache-Control", "max-age=60"), ("Expires", "@-60")], Want::Reused),
    ("cdn-0", &[("CDN-Cache-Control", "max-age=0"), ("Cache-Control", "max-age=60")], Want::Asked),
    ("cdn-0-expires", &[("CDN-Cache-Control", "max-age=0"), ("Expires", "@+60")], Want::Asked),
    (
        "cdn-no-store",
        &[("CDN-Cache-Control", "no-store"), ("Cache-Control", "max-age=60")],
        Want::Asked,
    ),
    (
        "cdn-private",
        &[("CDN-Cache-Control", "private"), ("Cache-Control", "max-age=60")],
        Want::Asked,
    ),
    (
        "cdn-no-cache",
        &[("CDN-Cache-Control", "no-cache"), ("Cache-Control", "max-age=60")],
        Want::Asked,
    ),
    // It replaces the other fields whole: no directive of theirs is left.
    ("cdn-unknown", &[("CDN-Cache-Control", "foo"), ("Cache-Control", "max-age=60")], Want::Asked),
    ("cdn-unknown-expires", &[("CDN-Cache-Control", "foo"), ("Expires", "@+60")], Want::Asked),
    (
        "cdn-public",
        &[("CDN-Cache-Control", "public"), ("Cache-Control", "max-age=60")],
        Want::Asked,
    ),
    (
        "cdn-s-maxage",
        &[("CDN-Cache-Control", "s-maxage=60"), ("Cache-Control", "max-age=0")],
        Want::Reused,
    ),
    ("cdn-s-maxage-0", &[("CDN-Cache-Control", "s-maxage=0, max-age=60")], Want::Asked),
    ("cdn-extension", &[("CDN-Cache-Control", "foo, max-age=60, bar=?0")], Want::Reused),
    ("cdn-parameters", &[("CDN-Cache-Control", "max-age=60;x=1;y")], Want::Reused),
    (
        "cdn-two-lines",
        &[("CDN-Cache-Control", "foo"), ("CDN-Cache-Control", "max-age=60")],
        Want::Reused,
    ),
    ("cdn-last-counts", &[("CDN-Cache-Control", "max-age=0, max-age=60")], Want::Reused),
    ("cdn-last-counts-0", &[("CDN-Cache-Control", "max-age=60, max-age=0")], Want::Asked),
    ("cdn-large", &[("CDN-Cache-Control", "max-age=99999999999")], Want::Reused),
    ("cdn-age", &[("CDN-Cache-Control", "max-age=60"), ("Age", "61")], Want::Asked),
    ("cdn-case-of-name", &[("cdn-CACHE-control", "max-age=60")], Want::Reused),
    // What does not parse as a Dictionary is ignored whole, an empty one too.
    (
        "cdn-upper-key",
        &[("CDN-Cache-Control", "Max-Age=60"), ("Cache-Control", "no-store")],
        Want::Asked,
    ),
    (
        "cdn-upper-key-cc",
        &[("CDN-Cache-Control", "No-Store"), ("Cache-Control", "max-age=60")],
        Want::Reused,
    ),
    (
        "cdn-garbage",
        &[("CDN-Cache-Control", "max-age=60, &&&"), ("Cache-Control", "no-store")],
        Want::Asked,
    ),
    (
        "cdn-garbage-cc",
        &[("CDN-Cache-Control", "no-store, &&&"), ("Cache-Control", "max-age=60")],
        Want::Reused,
    ),
    (
        "cdn-trailing-comma",
        &[("CDN-Cache-Control", "no-store,"), ("Cache-Control", "max-age=60")],
        Want::Reused,
    ),
    (
        "cdn-space-equals",
        &[("CDN-Cache-Control", "max-age =0"), ("Cache-Control", "max-age=60")],
        Want::Reused,
    ),
    (
        "cdn-equals-space",
        &[("CDN-Cache-Control", "max-age= 0"), ("Cache-Control", "max-age=60")],
        Want::Reused,
    ),
    (
        "cdn-too-large",
        &[("CDN-Cache-Control", "max-age=1234567890123456"), ("Cache-Control", "no-store")],
        Want::Asked,
    ),
    ("cdn-empty", &[("CDN-Cache-Control", ""), ("Cache-Control", "max-age=60")], Want::Reused),
    (
        "cdn-empty-no-store",
        &[("CDN-Cache-Control", ""), ("Cache-Control", "no-store")],
        Want::Asked,
    ),
    // A value of another type than the directive's.
    (
        "cdn-string",
        &[("CDN-Cache-Control", "max-age=\"60\""), ("Cache-Control", "no-store")],
        Want::Asked,
    ),
    (
        "cdn-decimal",
        &[("CDN-Cache-Control", "max-age=60.5"), ("Cache-Control", "no-store")],
        Want::Asked,
    ),
    (
        "cdn-negative",
        &[("CDN-Cache-Control", "max-age=-60"), ("Cache-Control", "max-age=60")],
        Want::Asked,
    ),
    ("cdn-bare", &[("CDN-Cache-Control", "max-age"), ("Cache-Control", "no-store")], Want::Asked),
    // Ours comes first in the list of targets.
    (
        "verge-over-cdn",
        &[("Verge-CDN-Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")],
        Want::Reused,
    ),
    (
        "verge-over-cdn-0",
        &[("Verge-CDN-Cache-Control", "max-age=0"), ("CDN-Cache-Control", "max-age=60")],
        Want::Asked,
    ),
    (
        "verge-invalid",
        &[
            ("Verge-CDN-Cache-Control", "max-age=60,"),
            ("CDN-Cache-Control", "no-store"),
            ("Cache-Control", "max-age=60"),
        ],
        Want::Asked,
    ),
];

pub(crate) async fn targeted(lab: &Lab) {
    run(lab, TARGETED).await;

    // Authorization asks for a word of the field that counts (RFC 9111 section 3.5).
    let secret: Fields = &[("Authorization", "Bearer one")];
    let with_public: Fields =
        &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "public, s-maxage=60")];
    lab.run(&[
        ("cdn-authorized", secret, 200, with_public, NONE, Want::Asked),
        (
            "cdn-authorized-public",
            secret,
            200,
            &[("CDN-Cache-Control", "max-age=60, public")],
            NONE,
            Want::Reused,
        ),
    ])
    .await;

    // CDN-Cache-Control is passed on, for caches behind us; ours ends here.
    let fields: Fields = &[
        ("CDN-Cache-Control", "max-age=60, foo"),
        ("Verge-CDN-Cache-Control", "max-age=90"),
        ("Cache-Control", "max-age=5"),
    ];
    lab.script.plan("/cdn-passed", [Turn::new(200, fields, "1")]);
    for _ in 0..2 {
        let reply = lab.get("/cdn-passed").await;
        lab.same("cdn-passed", reply.field("cdn-cache-control"), "max-age=60, foo", &reply);
        lab.same("cdn-passed", reply.field("cache-control"), "max-age=5", &reply);
        lab.same("verge-stripped", reply.field("verge-cdn-cache-control"), "", &reply);
    }
    lab.same("cdn-passed", lab.script.count("/cdn-passed"), 1, &lab.get("/cdn-passed").await);
}

/// Section 4.2.3 and 5.1: what Age says.
pub(crate) async fn ages(lab: &Lab) {
    // Dates count whole seconds, and clocks may be a second apart.
    for (id, fields, at_least, at_most) in [
        ("age-of-age", &[("Age", "100")][..], 100, 130),
        ("age-of-date", &[("Date", "@-100")][..], 98, 130),
        ("age-larger-date", &[("Date", "@-100"), ("Age", "50")][..], 98, 130),
        ("age-larger-age", &[("Date", "@-50"), ("Age", "100")][..], 100, 130),
        ("age-of-future-date", &[("Date", "@+100")][..], 0, 30),
        ("age-of-nothing", &[][..], 0, 30),
    ] {
        let path = format!("/{id}");
        let fields: Vec<_> = FRESH.iter().chain(fields).copied().collect();
        lab.script.plan(&path, [Turn::new(200, &fields, "1"), Turn::new(200, NO_STORE, "2")]);
        lab.get(&path).await;
        let hit = lab.get(&path).await;
        let age: i64 = hit.field("age").parse().unwrap_or(-1);
        lab.check(id, hit.is_hit() && (at_least..=at_most).contains(&age), format!("{hit:?}"));
        let ages = hit.headers.get_all("age").iter().count();
        lab.same(id, ages, 1, &hit);
    }
}
