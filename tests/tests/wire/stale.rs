//! When a stale response may be served (RFC 9111 section 4.2.4, RFC 5861), and when it must not.

use super::lab::{Fields, Lab, NO_STORE};
use verge_tests::{Turn, until};

/// What the origin does when it is asked again.
#[derive(Debug, Clone, Copy)]
enum Origin {
    HangsUp,
    Says(u16),
}

/// What the visitor gets then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    /// The stored response.
    Stale,
    /// An error of ours: 502 or 504.
    Error,
    /// What the origin said.
    TheSame,
}

use Gets::{Error, Stale, TheSame};
use Origin::{HangsUp, Says};

const CASES: &[(&str, Fields, Origin, Gets)] = &[
    // Nobody allowed it.
    ("stale-plain", &[("Cache-Control", "max-age=60")], HangsUp, Error),
    ("stale-plain-500", &[("Cache-Control", "max-age=60")], Says(500), TheSame),
    // RFC 5861 section 4.
    ("sie-hang-up", &[("Cache-Control", "max-age=60, stale-if-error=3600")], HangsUp, Stale),
    ("sie-500", &[("Cache-Control", "max-age=60, stale-if-error=3600")], Says(500), Stale),
    ("sie-502", &[("Cache-Control", "max-age=60, stale-if-error=3600")], Says(502), Stale),
    ("sie-503", &[("Cache-Control", "max-age=60, stale-if-error=3600")], Says(503), Stale),
    ("sie-504", &[("Cache-Control", "max-age=60, stale-if-error=3600")], Says(504), Stale),
    ("sie-404", &[("Cache-Control", "max-age=60, stale-if-error=3600")], Says(404), TheSame),
    ("sie-403", &[("Cache-Control", "max-age=60, stale-if-error=3600")], Says(403), TheSame),
    ("sie-quoted", &[("Cache-Control", "max-age=60, stale-if-error=\"3600\"")], HangsUp, Stale),
    ("sie-case", &[("Cache-Control", "max-age=60, Stale-If-Error=3600")], HangsUp, Stale),
    ("sie-0", &[("Cache-Control", "max-age=60, stale-if-error=0")], HangsUp, Error),
    ("sie-invalid", &[("Cache-Control", "max-age=60, stale-if-error=abc")], HangsUp, Error),
    ("sie-over", &[("Cache-Control", "max-age=60, stale-if-error=10")], HangsUp, Error),
    ("sie-over-500", &[("Cache-Control", "max-age=60, stale-if-error=10")], Says(500), TheSame),
    ("sie-cdn", &[("CDN-Cache-Control", "max-age=60, stale-if-error=3600")], HangsUp, Stale),
    (
        "sie-cdn-replaces",
        &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "stale-if-error=3600")],
        HangsUp,
        Error,
    ),
    // 5.2.2.2, 5.2.2.8, 5.2.2.10, 5.2.2.4: forbidden, whatever else is said.
    ("stale-must", &[("Cache-Control", "max-age=60, must-revalidate")], HangsUp, Error),
    ("stale-proxy", &[("Cache-Control", "max-age=60, proxy-revalidate")], HangsUp, Error),
    ("stale-s-maxage", &[("Cache-Control", "s-maxage=60")], HangsUp, Error),
    ("stale-no-cache", &[("Cache-Control", "max-age=60, no-cache")], HangsUp, Error),
    (
        "stale-must-sie",
        &[("Cache-Control", "max-age=60, must-revalidate, stale-if-error=3600")],
        HangsUp,
        Error,
    ),
    (
        "stale-proxy-sie",
        &[("Cache-Control", "max-age=60, proxy-revalidate, stale-if-error=3600")],
        HangsUp,
        Error,
    ),
    (
        "stale-s-maxage-sie",
        &[("Cache-Control", "s-maxage=60, stale-if-error=3600")],
        HangsUp,
        Error,
    ),
    (
        "stale-no-cache-sie",
        &[("Cache-Control", "max-age=60, no-cache, stale-if-error=3600")],
        HangsUp,
        Error,
    ),
    (
        "stale-must-sie-500",
        &[("Cache-Control", "max-age=60, must-revalidate, stale-if-error=3600")],
        Says(500),
        TheSame,
    ),
    (
        "stale-must-swr",
        &[("Cache-Control", "max-age=60, must-revalidate, stale-while-revalidate=3600")],
        HangsUp,
        Error,
    ),
    (
        "stale-s-maxage-swr",
        &[("Cache-Control", "s-maxage=60, stale-while-revalidate=3600")],
        HangsUp,
        Error,
    ),
    (
        "stale-no-cache-swr",
        &[("Cache-Control", "max-age=60, no-cache, stale-while-revalidate=3600")],
        HangsUp,
        Error,
    ),
    ("swr-over", &[("Cache-Control", "max-age=60, stale-while-revalidate=10")], HangsUp, Error),
    ("swr-0", &[("Cache-Control", "max-age=60, stale-while-revalidate=0")], HangsUp, Error),
    ("swr-invalid", &[("Cache-Control", "max-age=60, stale-while-revalidate=x")], HangsUp, Error),
];

pub(crate) async fn allowed_and_forbidden(lab: &Lab) {
    for (id, fields, then, gets) in CASES {
        let path = format!("/{id}");
        // Stale since a minute when it comes, so that nothing has to be waited for.
        let fields: Vec<_> = fields.iter().copied().chain([("Age", "120")]).collect();
        let again = match then {
            HangsUp => Turn::hang_up(),
            Says(status) => Turn::new(*status, NO_STORE, "2"),
        };
        lab.script.plan(&path, [Turn::new(200, &fields, "1"), again]);
        let stored = lab.get(&path).await;
        if stored.status != 200 {
            lab.check(id, false, format!("the first answer is not passed on: {stored:?}"));
            continue;
        }
        let reply = lab.get(&path).await;
        let got = match (reply.status, reply.text().as_str(), then) {
            (200, "1", _) => Some(Stale),
            (status, "2", Says(said)) if status == *said => Some(TheSame),
            (502 | 504, _, HangsUp) => Some(Error),
            _ => None,
        };
        lab.check(id, got == Some(*gets), format!("got {got:?}, wanted {gets:?}: {reply:?}"));
        if got == Some(Stale) {
            // 5.1: its age is told, past its lifetime.
            let age: u64 = reply.field("age").parse().unwrap_or(0);
            lab.check("stale-age", age >= 120, format!("{reply:?}"));
        }
        lab.check("stale-asks", lab.script.count(&path) >= 2, format!("{id}: {reply:?}"));
    }
}

/// RFC 5861 section 3.
pub(crate) async fn while_revalidate(lab: &Lab) {
    let stale: Fields = &[
        ("Cache-Control", "max-age=60, stale-while-revalidate=3600"),
        ("Age", "120"),
        ("ETag", "\"1\""),
    ];
    let fresh: Fields = &[("Cache-Control", "max-age=60"), ("ETag", "\"2\"")];
    lab.script.plan("/swr", [Turn::new(200, stale, "1"), Turn::new(200, fresh, "2")]);
    lab.get("/swr").await;
    let second = lab.get("/swr").await;
    lab.same("swr", second.text().as_str(), "1", &second);
    until("the revalidation", || async { (lab.get("/swr").await.text() == "2").then_some(()) })
        .await;
    lab.same("swr-once", lab.script.count("/swr"), 2, &second);
    let asked = lab.script.seen("/swr");
    lab.same(
        "swr-conditional",
        asked[1].headers.get("if-none-match").map(|value| value.as_bytes().to_vec()),
        Some(b"\"1\"".to_vec()),
        &second,
    );

    // A 304 makes the stored one fresh.
    let again: Fields = &[("Cache-Control", "max-age=60"), ("ETag", "\"1\""), ("New", "yes")];
    lab.script.plan("/swr-304", [Turn::new(200, stale, "1"), Turn::new(304, again, "")]);
    lab.get("/swr-304").await;
    let second = lab.get("/swr-304").await;
    lab.same("swr-304", second.text().as_str(), "1", &second);
    until("the 304 to be taken in", || async {
        (lab.get("/swr-304").await.field("new") == "yes").then_some(())
    })
    .await;
    let third = lab.get("/swr-304").await;
    lab.check("swr-304", third.is_hit() && third.text() == "1", format!("{third:?}"));
    lab.same("swr-304", lab.script.count("/swr-304"), 2, &third);

    // An error behind does not replace what is stored and allowed.
    lab.script.plan("/swr-500", [Turn::new(200, stale, "1"), Turn::new(500, NO_STORE, "2")]);
    lab.get("/swr-500").await;
    for _ in 0..5 {
        let reply = lab.get("/swr-500").await;
        lab.same("swr-500", reply.text().as_str(), "1", &reply);
    }

    // A request that wants it fresh is not answered with stale content.
    lab.script.plan("/swr-no-cache", [Turn::new(200, stale, "1"), Turn::new(200, fresh, "2")]);
    lab.get("/swr-no-cache").await;
    let reply = lab.ask("GET", "/swr-no-cache", &[("Cache-Control", "no-cache")]).await;
    lab.same("swr-no-cache", reply.text().as_str(), "2", &reply);
}
