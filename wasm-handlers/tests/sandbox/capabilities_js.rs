//! What a guest in JavaScript may use of an edge through the SDK: granted, it works; not granted, or given
//! what is out of bounds, the guest catches one kind of error, with its code and a text that says what to do.

use verge_config::process::Secret;
use verge_config::site::{Grant, HandlerLimits};
use verge_handlers::{Handler, LogLevel, LogLine, LogStream, Tls, Visitor};

use crate::support::{Recorder, get, granted, handler, roomy, text, told};

const GUEST: &str = "capabilities-js";

/// A handler with every grant.
async fn all(limits: HandlerLimits) -> Handler {
    granted(GUEST, limits, &[], &Grant::ALL).await
}

/// Whether it is an error with this code and text.
fn is_error(said: &str, code: &str, wanted: &str) -> bool {
    said.starts_with(&format!("{{\"code\":\"{code}\",\"message\":\"")) && said.contains(wanted)
}

#[tokio::test]
async fn configuration_needs_no_grant() {
    let host = Recorder::new();
    let plain = granted(GUEST, roomy(), &[("a.b", "one"), ("empty", "")], &[]).await;
    assert_eq!(told(&plain, &host, "/config?key=a.b").await, r#"{"ok":"one"}"#);
    assert_eq!(told(&plain, &host, "/config?key=empty").await, r#"{"ok":""}"#);
    assert_eq!(told(&plain, &host, "/config?key=A.B").await, r#"{"ok":null}"#);
    let whole = told(&plain, &host, "/config/all").await;
    assert_eq!(whole, r#"{"ok":{"a.b":"one","empty":""}}"#);
    // The control: another site's handler of the same component has another configuration.
    let other = handler(GUEST, roomy()).await;
    assert_eq!(told(&other, &host, "/config/all").await, r#"{"ok":{}}"#);
}

#[tokio::test]
async fn messages_keep_their_level_and_context() {
    let host = Recorder::new();
    let handler = handler(GUEST, roomy()).await;
    let answer = handler.call(get("/log?context=cart&message=full"), host.clone()).await.unwrap();
    assert_eq!(text(answer).await, r#"{"ok":"logged"}"#);
    host.end().await;
    let line = |level: LogLevel, message: &str| LogLine {
        stream: LogStream::Logging(level),
        context: "cart".into(),
        message: message.into(),
    };
    use LogLevel::{Critical, Debug, Error, Info, Trace, Warn};
    let mut expected: Vec<_> =
        [Trace, Debug, Info, Warn, Error, Critical].map(|level| line(level, "full")).to_vec();
    expected.push(line(Warn, "by its name"));
    assert_eq!(host.all_lines(), expected);
    let said = told(&handler, &Recorder::new(), "/log/level?level=fatal").await;
    assert!(is_error(&said, "invalid", "fatal is no level: trace, debug, info, warn"), "{said}");
}

#[tokio::test]
async fn what_is_not_granted_says_what_to_add() {
    let host = Recorder::new();
    host.secrets.lock().insert("KEY".into(), Secret::new("canary"));
    host.entries.lock().insert("k".into(), "canary".into());
    let bare = handler(GUEST, roomy()).await;
    for (path, name) in [
        ("/cache/get?key=k", "cache"),
        ("/cache/put?key=k&value=v", "cache"),
        ("/cache/purge?tags=t", "cache"),
        ("/client", "client"),
        ("/secrets?name=KEY", "secrets"),
        ("/kv/get?key=k", "keyvalue"),
        ("/kv/set?key=k&value=v", "keyvalue"),
        ("/kv/keys", "keyvalue"),
    ] {
        let said = told(&bare, &host, path).await;
        let hint = format!("\\\"{name}\\\" is not granted: add it to the grants of");
        assert!(is_error(&said, "not-granted", &hint), "{path}: {said}");
        assert!(said.contains("in the site file, as in grants = ["), "{path}: {said}");
        assert!(!said.contains("canary"), "{said}");
        // One grant is not another.
        let others: Vec<_> = Grant::ALL.into_iter().filter(|g| g.name() != name).collect();
        let other = granted(GUEST, roomy(), &[], &others).await;
        assert!(told(&other, &host, path).await.contains("not-granted"), "{path}");
        assert!(host.cached.lock().is_empty(), "{path}");
        assert_eq!(&host.entries.lock()["k"][..], b"canary", "{path}");
        // The control.
        let grant = Grant::ALL.into_iter().find(|g| g.name() == name).unwrap();
        let with = granted(GUEST, roomy(), &[], &[grant]).await;
        assert!(!told(&with, &host, path).await.contains("not-granted"), "{path}");
        host.cached.lock().clear();
        host.entries.lock().insert("k".into(), "canary".into());
    }
}

#[tokio::test]
async fn what_is_put_is_got_until_it_is_purged() {
    let host = Recorder::new();
    let handler = all(roomy()).await;
    assert_eq!(told(&handler, &host, "/cache/get?key=k").await, r#"{"ok":null}"#);
    let put = "/cache/put?key=k&value=v%C3%A4&ttl=7.9&tags=a,b";
    assert_eq!(told(&handler, &host, put).await, r#"{"ok":null}"#);
    {
        let cached = host.cached.lock();
        let entry = &cached["k"];
        assert_eq!((&entry.value[..], entry.ttl), ("vä".as_bytes(), 7));
        assert_eq!(entry.tags, ["a", "b"]);
    }
    assert_eq!(told(&handler, &host, "/cache/get?key=k").await, r#"{"ok":"vä"}"#);
    assert_eq!(told(&handler, &host, "/cache/purge?tags=other").await, r#"{"ok":0}"#);
    assert_eq!(told(&handler, &host, "/cache/purge?tags=b").await, r#"{"ok":1}"#);
    assert_eq!(told(&handler, &host, "/cache/get?key=k").await, r#"{"ok":null}"#);
    // A part of a larger array, and no text.
    assert_eq!(told(&handler, &host, "/cache/bytes?key=k").await, r#"{"ok":[255,128,10]}"#);
    let full = told(&handler, &host, "/cache/put?key=full&value=v").await;
    assert!(is_error(&full, "unavailable", "the cache is full"), "{full}");
}

#[tokio::test]
async fn what_is_out_of_bounds_is_told_and_never_reaches_the_host() {
    let host = Recorder::new();
    let handler = all(roomy()).await;
    let most = told(&handler, &host, "/cache/put/long?key=k&bytes=1048576").await;
    assert_eq!(most, r#"{"ok":null}"#);
    host.cached.lock().clear();
    let key = "k".repeat(513);
    let tags = vec!["t"; 65].join(",");
    for (path, wanted) in [
        ("/cache/put/long?key=k&bytes=1048577".to_owned(), "the value has 1048577 bytes; at most"),
        (format!("/cache/put?key={key}&value=v"), "a key of 513 bytes is out of bounds: 1 to 512"),
        ("/cache/put?value=v".to_owned(), "a key of 0 bytes"),
        (format!("/cache/get?key={key}"), "a key of 513 bytes"),
        ("/cache/put?key=k&value=v&ttl=0".to_owned(), "a ttl of 0 s is out of bounds"),
        ("/cache/put?key=k&value=v&ttl=31536001".to_owned(), "out of bounds: 1 to 31536000"),
        ("/cache/put?key=k&value=v&ttl=Infinity".to_owned(), "out of bounds: 1 to 31536000"),
        (format!("/cache/put?key=k&value=v&tags={tags}"), "65 tags; at most 64"),
        (format!("/cache/purge?tags={tags}"), "65 tags; at most 64"),
        ("/cache/purge?tags=".to_owned(), "name at least one tag"),
    ] {
        let said = told(&handler, &host, &path).await;
        assert!(is_error(&said, "invalid", wanted), "{path}: {said}");
    }
    assert!(host.cached.lock().is_empty());
}

#[tokio::test]
async fn what_is_of_another_type_is_told_and_never_reaches_the_host() {
    let host = Recorder::new();
    let handler = all(roomy()).await;
    for (case, wanted) in [
        ("key", "key must be a string, not number"),
        ("value", "value must be a string, a Uint8Array or an ArrayBuffer, not object"),
        ("options", "ttl must be a number of seconds, not undefined"),
        ("ttl", "ttl must be a number of seconds, not string"),
        ("negative", "ttl must be a number of seconds, not -1"),
        ("none", "ttl must be a number of seconds, not NaN"),
        ("wrapped", "out of bounds: 1 to 31536000"),
        ("large", "out of bounds: 1 to 31536000"),
        ("tags", "tags must be an array, not string"),
        ("tag", "tags[1] must be a string, not null"),
        ("pair", "entries[0] must be an array, not string"),
        ("cursor", "cursor must be the one of the page before"),
        ("bucket", "name must be a string, not null"),
    ] {
        let said = told(&handler, &host, &format!("/cache/odd?case={case}")).await;
        assert!(is_error(&said, "invalid", wanted), "{case}: {said}");
    }
    assert!(host.cached.lock().is_empty() && host.entries.lock().is_empty());
}

#[tokio::test]
async fn calls_are_counted() {
    let host = Recorder::new();
    let few = all(HandlerLimits { cache_calls: 10, kv_calls: 20, ..roomy() }).await;
    let said = told(&few, &host, "/cache/many?n=40").await;
    assert!(said.starts_with(r#"{"ok":{"good":10,"bad":30,"code":"too-many""#), "{said}");
    assert!(said.contains("more than 10 calls of the cache; raise limits.cache_calls"), "{said}");
    let said = told(&few, &host, "/kv/many?n=40").await;
    assert!(said.starts_with(r#"{"ok":{"good":20,"bad":20,"code":"other""#), "{said}");
    assert!(said.contains("raise limits.kv_calls"), "{said}");
    // The next request has its own.
    let said = told(&few, &host, "/cache/many?n=10").await;
    assert_eq!(said, r#"{"ok":{"good":10,"bad":0}}"#);
}

#[tokio::test]
async fn the_visitor_is_told_as_the_host_knows_it() {
    let host = Recorder::new();
    let handler = all(roomy()).await;
    let said = told(&handler, &host, "/client").await;
    assert!(is_error(&said, "unavailable", "nobody is known"), "{said}");
    let visitor = Visitor {
        address: "2001:db8::7".parse().unwrap(),
        is_https: true,
        tls: Some(Tls { version: "TLSv1.3", server_name: Some("a.example".into()) }),
        country: None,
        edge: "fra-1".into(),
    };
    *host.visitor.lock() = Some(visitor.clone());
    let tls = r#"{"version":"TLSv1.3","serverName":"a.example"}"#;
    let wanted = format!(
        r#"{{"ok":{{"address":"2001:db8::7","scheme":"https","tls":{tls},"edge":"fra-1"}}}}"#
    );
    assert_eq!(told(&handler, &host, "/client").await, wanted);
    let plain = Visitor {
        address: "192.0.2.7".parse().unwrap(),
        is_https: false,
        tls: None,
        country: Some("DE".into()),
        ..visitor
    };
    *host.visitor.lock() = Some(plain);
    let wanted = r#"{"ok":{"address":"192.0.2.7","scheme":"http","country":"DE","edge":"fra-1"}}"#;
    assert_eq!(told(&handler, &host, "/client").await, wanted);
}

#[tokio::test]
async fn a_secret_shows_itself_only_when_revealed() {
    let host = Recorder::new();
    host.secrets.lock().insert("KEY".into(), Secret::new("canary"));
    let handler = all(roomy()).await;
    let said = told(&handler, &host, "/secrets?name=KEY").await;
    assert_eq!(said, r#"{"ok":{"shown":"Secret \"Secret\"","revealed":"canary"}}"#);
    assert_eq!(told(&handler, &host, "/secrets?name=key").await, r#"{"ok":null}"#);

    // Printed, logged, and in the text of an error that nobody catches: nothing of it.
    let answer = handler.call(get("/secrets/leak?name=KEY"), host.clone()).await;
    let said = match answer {
        Ok(answer) => text(answer).await,
        Err(ended) => format!("{ended:?} {ended}"),
    };
    host.end().await;
    let lines = host.all_lines();
    assert!(lines.iter().any(|line| line.context == "leak"), "{lines:?}");
    assert!(lines.iter().any(|line| line.stream == LogStream::Stdout), "{lines:?}");
    assert!(!format!("{lines:?} {said}").contains("canary"), "{lines:?} {said}");
}

#[tokio::test]
async fn entries_of_the_key_value_store() {
    let host = Recorder::new();
    let handler = all(roomy()).await;
    for (path, wanted) in [
        ("/kv/get?key=k", r#"{"ok":null}"#),
        ("/kv/set?key=k&value=v", r#"{"ok":null}"#),
        ("/kv/get?key=k", r#"{"ok":"v"}"#),
        ("/kv/get?key=k&bucket=default", r#"{"ok":"v"}"#),
        ("/kv/has?key=k", r#"{"ok":true}"#),
        ("/kv/set?key=empty&value=", r#"{"ok":null}"#),
        ("/kv/get?key=empty", r#"{"ok":""}"#),
        ("/kv/set-many?keys=a,b&value=w", r#"{"ok":null}"#),
        ("/kv/get-many?keys=b,none,k", r#"{"ok":[["b","w"],["k","v"]]}"#),
        ("/kv/page", r#"{"ok":{"keys":["a","b"],"cursor":2}}"#),
        ("/kv/page?cursor=2", r#"{"ok":{"keys":["empty","k"]}}"#),
        // Two keys a page.
        ("/kv/keys", r#"{"ok":["a","b","empty","k"]}"#),
        ("/kv/delete-many?keys=a,b,none", r#"{"ok":null}"#),
        ("/kv/delete?key=k", r#"{"ok":null}"#),
        ("/kv/delete?key=k", r#"{"ok":null}"#),
        ("/kv/has?key=k", r#"{"ok":false}"#),
        ("/kv/delete?key=empty", r#"{"ok":null}"#),
        ("/kv/keys", r#"{"ok":[]}"#),
        // Opened again and again, it is one handle of the host's.
        ("/kv/hoard", r#"{"ok":100000}"#),
    ] {
        assert_eq!(told(&handler, &host, path).await, wanted, "{path}");
    }
    let key = "k".repeat(513);
    for (path, wanted) in [
        ("/kv/set?key=away&value=v".to_owned(), "nobody keeps it"),
        (format!("/kv/set?key={key}&value=v"), "a key of 513 bytes is out of bounds: 1 to 512"),
        ("/kv/get?key=".to_owned(), "a key of 0 bytes"),
        ("/kv/set/long?key=k&bytes=1048577".to_owned(), "the value has 1048577 bytes; at most"),
    ] {
        let said = told(&handler, &host, &path).await;
        assert!(is_error(&said, "other", wanted), "{path}: {said}");
    }
    for bucket in ["other", "Default", "site"] {
        let said = told(&handler, &host, &format!("/kv/get?key=k&bucket={bucket}")).await;
        assert!(is_error(&said, "no-such-store", "a site has one store"), "{bucket}: {said}");
    }
}
