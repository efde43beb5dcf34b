//! What a guest may use of an edge: granted, it works; not granted, the guest is told what to add.

use verge_config::process::Secret;
use verge_config::site::{Grant, HandlerLimits};
use verge_handlers::{Ended, Handler, LogLevel, LogLine, LogStream, Tls, Visitor};

use crate::support::{Recorder, get, granted, handler, roomy, text, told};

const GUEST: &str = "capabilities-rust";

/// A handler with every grant.
async fn all(limits: HandlerLimits, config: &[(&str, &str)]) -> Handler {
    granted(GUEST, limits, config, &Grant::ALL).await
}

#[tokio::test]
async fn configuration_needs_no_grant() {
    let host = Recorder::new();
    let plain = granted(GUEST, roomy(), &[("a.b", "one"), ("empty", "")], &[]).await;
    assert_eq!(told(&plain, &host, "/config?key=a.b").await, "Some(\"one\")");
    assert_eq!(told(&plain, &host, "/config?key=empty").await, "Some(\"\")");
    assert_eq!(told(&plain, &host, "/config?key=A.B").await, "None");
    let whole = told(&plain, &host, "/config/all").await;
    assert_eq!(whole, r#"{"a.b": "one", "empty": ""}"#);
    // The control: another site's handler of the same component has another configuration.
    let other = handler(GUEST, roomy()).await;
    assert_eq!(told(&other, &host, "/config/all").await, "{}");
}

#[tokio::test]
async fn messages_keep_their_level_and_context() {
    let host = Recorder::new();
    let handler = handler(GUEST, roomy()).await;
    let answer = handler.call(get("/log?context=cart&message=full"), host.clone()).await.unwrap();
    assert_eq!(text(answer).await, "logged\n");
    host.end().await;
    let line = |level: LogLevel| LogLine {
        stream: LogStream::Logging(level),
        context: "cart".into(),
        message: "full".into(),
    };
    use LogLevel::{Critical, Debug, Error, Info, Trace, Warn};
    let mut expected: Vec<_> = [Trace, Debug, Info, Warn, Error, Critical].map(line).to_vec();
    expected.push(LogLine {
        stream: LogStream::Stdout,
        context: String::new(),
        message: "printed beside it".into(),
    });
    assert_eq!(host.all_lines(), expected);
}

#[tokio::test]
async fn what_is_not_granted_says_what_to_add() {
    let host = Recorder::new();
    host.secrets.lock().insert("KEY".into(), Secret::new("canary"));
    let bare = handler(GUEST, roomy()).await;
    for (path, name) in [
        ("/cache/get?key=k", "cache"),
        ("/cache/put?key=k&value=v", "cache"),
        ("/cache/purge?tags=t", "cache"),
        ("/client", "client"),
        ("/secrets?name=KEY", "secrets"),
    ] {
        let said = told(&bare, &host, path).await;
        let hint = format!("\\\"{name}\\\" is not granted: add it to the grants of");
        assert!(said.contains("NotGranted") && said.contains(&hint), "{path}: {said}");
        assert!(said.contains("[handlers.handler] in the site file"), "{path}: {said}");
        assert!(!said.contains("canary"), "{said}");
        // One grant is not another.
        let others: Vec<_> = Grant::ALL.into_iter().filter(|g| g.name() != name).collect();
        let other = granted(GUEST, roomy(), &[], &others).await;
        assert!(told(&other, &host, path).await.contains("NotGranted"), "{path}");
        assert!(host.cached.lock().is_empty(), "{path}");
        // The control.
        let grant = Grant::ALL.into_iter().find(|g| g.name() == name).unwrap();
        let with = granted(GUEST, roomy(), &[], &[grant]).await;
        assert!(!told(&with, &host, path).await.contains("NotGranted"), "{path}");
        host.cached.lock().clear();
    }
}

#[tokio::test]
async fn what_is_put_is_got_until_it_is_purged() {
    let host = Recorder::new();
    let handler = all(roomy(), &[]).await;
    assert_eq!(told(&handler, &host, "/cache/get?key=k").await, "Ok(None)");
    assert_eq!(told(&handler, &host, "/cache/put?key=k&value=v&ttl=7&tags=a,b").await, "Ok(())");
    {
        let cached = host.cached.lock();
        let entry = &cached["k"];
        assert_eq!((&entry.value[..], entry.ttl), (&b"v"[..], 7));
        assert_eq!(entry.tags, ["a", "b"]);
    }
    assert_eq!(told(&handler, &host, "/cache/get?key=k").await, "Ok(Some(\"v\"))");
    assert_eq!(told(&handler, &host, "/cache/purge?tags=other").await, "Ok(0)");
    assert_eq!(told(&handler, &host, "/cache/purge?tags=b").await, "Ok(1)");
    assert_eq!(told(&handler, &host, "/cache/get?key=k").await, "Ok(None)");
    let full = told(&handler, &host, "/cache/put?key=full&value=v").await;
    assert!(full.contains("Unavailable(\"the cache is full\")"), "{full}");
}

#[tokio::test]
async fn what_is_out_of_bounds_is_told_and_never_reaches_the_host() {
    let host = Recorder::new();
    let handler = all(roomy(), &[]).await;
    let most = told(&handler, &host, "/cache/put/long?key=k&bytes=1048576").await;
    assert_eq!(most, "Ok(())");
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
        (format!("/cache/put?key=k&value=v&tags={tags}"), "65 tags; at most 64"),
        (format!("/cache/purge?tags={tags}"), "65 tags; at most 64"),
        ("/cache/purge?tags=".to_owned(), "name at least one tag"),
    ] {
        let said = told(&handler, &host, &path).await;
        assert!(said.contains("Invalid") && said.contains(wanted), "{path}: {said}");
    }
    assert!(host.cached.lock().is_empty());
}

#[tokio::test]
async fn calls_of_the_cache_are_counted() {
    let host = Recorder::new();
    let few = all(HandlerLimits { cache_calls: 10, ..roomy() }, &[]).await;
    let said = told(&few, &host, "/cache/many?n=40").await;
    assert!(said.starts_with("good 10, bad 30"), "{said}");
    assert!(said.contains("more than 10 calls of the cache; raise limits.cache_calls"), "{said}");
    // The next request has its own.
    assert!(told(&few, &host, "/cache/many?n=10").await.starts_with("good 10, bad 0"));
    let none = all(HandlerLimits { cache_calls: 0, ..roomy() }, &[]).await;
    assert!(told(&none, &host, "/cache/many?n=1").await.starts_with("good 0, bad 1"));
}

#[tokio::test]
async fn the_visitor_is_told_as_the_host_knows_it() {
    let host = Recorder::new();
    let handler = all(roomy(), &[]).await;
    let said = told(&handler, &host, "/client").await;
    assert!(said.contains("Unavailable(\"nobody is known\")"), "{said}");
    let visitor = Visitor {
        address: "2001:db8::7".parse().unwrap(),
        is_https: true,
        tls: Some(Tls { version: "TLSv1.3", server_name: Some("a.example".into()) }),
        country: None,
        edge: "fra-1".into(),
    };
    *host.visitor.lock() = Some(visitor.clone());
    let said = told(&handler, &host, "/client").await;
    for part in ["2001:db8::7", "Https", "TLSv1.3", "Some(\"a.example\")", "None", "\"fra-1\""] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let plain = Visitor {
        address: "192.0.2.7".parse().unwrap(),
        is_https: false,
        tls: None,
        country: Some("DE".into()),
        ..visitor
    };
    *host.visitor.lock() = Some(plain);
    let said = told(&handler, &host, "/client").await;
    for part in ["\"192.0.2.7\"", "Scheme::Http,", "tls: None", "Some(\"DE\")"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test]
async fn a_secret_shows_itself_only_when_revealed() {
    let host = Recorder::new();
    host.secrets.lock().insert("KEY".into(), Secret::new("canary"));
    let handler = all(roomy(), &[]).await;
    let said = told(&handler, &host, "/secrets?name=KEY").await;
    let (before, revealed) = said.split_once(" is ").unwrap();
    assert!(!before.contains("canary"), "{said}");
    assert_eq!(revealed, "canary");
    assert_eq!(told(&handler, &host, "/secrets?name=key").await, "Ok(None)");

    // Printed, logged, and in the text of a panic: nothing of it.
    let ended = handler.call(get("/secrets/leak?name=KEY"), host.clone()).await.unwrap_err();
    assert!(matches!(ended, Ended::Trapped { .. }), "{ended:?}");
    host.end().await;
    let lines = host.all_lines();
    assert!(lines.iter().any(|line| line.context == "leak"), "{lines:?}");
    assert!(!format!("{lines:?} {ended:?} {ended}").contains("canary"), "{lines:?}");
}

#[tokio::test]
async fn handles_of_secrets_do_not_pile_up_in_the_host() {
    let host = Recorder::new();
    host.secrets.lock().insert("KEY".into(), Secret::new("canary"));
    let handler = all(roomy(), &[]).await;
    let ended = handler.call(get("/secrets/hoard?name=KEY"), host.clone()).await.unwrap_err();
    assert!(matches!(ended, Ended::Trapped { .. }), "{ended:?}");
    // The control: as many of what is not there are no handles.
    let said = told(&handler, &host, "/secrets/hoard?name=OTHER").await;
    assert_eq!(said, "held 100000");
}

#[tokio::test]
async fn entries_of_the_key_value_store() {
    let host = Recorder::new();
    let handler = all(roomy(), &[]).await;
    for (path, wanted) in [
        ("/kv/get?key=k", "Ok(None)"),
        ("/kv/set?key=k&value=v", "Ok(())"),
        ("/kv/get?key=k", "Ok(Some(\"v\"))"),
        ("/kv/get?key=k&bucket=default", "Ok(Some(\"v\"))"),
        ("/kv/exists?key=k", "Ok(true)"),
        ("/kv/set?key=empty&value=", "Ok(())"),
        ("/kv/get?key=empty", "Ok(Some(\"\"))"),
        ("/kv/set-many?keys=a,b&value=w", "Ok(())"),
        ("/kv/get-many?keys=b,none,k", "Ok([Some((\"b\", \"w\")), None, Some((\"k\", \"v\"))])"),
        ("/kv/list", "Ok(([\"a\", \"b\"], Some(2)))"),
        ("/kv/list?cursor=2", "Ok(([\"empty\", \"k\"], None))"),
        ("/kv/delete-many?keys=a,b,none", "Ok(())"),
        ("/kv/delete?key=k", "Ok(())"),
        ("/kv/delete?key=k", "Ok(())"),
        ("/kv/exists?key=k", "Ok(false)"),
    ] {
        assert_eq!(told(&handler, &host, path).await, wanted, "{path}");
    }
    let away = told(&handler, &host, "/kv/set?key=away&value=v").await;
    assert!(away.contains("Other") && away.contains("nobody keeps it"), "{away}");
    for bucket in ["other", "Default", "site"] {
        let said = told(&handler, &host, &format!("/kv/get?key=k&bucket={bucket}")).await;
        assert!(said.contains("NoSuchStore"), "{bucket}: {said}");
    }
}

#[tokio::test]
async fn the_key_value_store_needs_a_grant_and_the_log_says_so_once() {
    let host = Recorder::new();
    host.entries.lock().insert("k".into(), "canary".into());
    let others: Vec<_> = Grant::ALL.into_iter().filter(|g| *g != Grant::KeyValue).collect();
    for grants in [&[][..], &others] {
        let one = Recorder::new();
        let bare = granted(GUEST, roomy(), &[], grants).await;
        let answer = bare.call(get("/kv/hoard"), one.clone()).await.unwrap();
        assert_eq!(text(answer).await, "held 100000\n", "what is refused is no handle");
        one.end().await;
        let lines = one.lines(LogStream::Host);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("\"keyvalue\" is not granted: add it to the grants of"));
        for path in ["/kv/get?key=k", "/kv/set?key=k&value=v", "/kv/list"] {
            assert!(told(&bare, &host, path).await.contains("AccessDenied"), "{path}");
        }
    }
    // The control.
    let with = granted(GUEST, roomy(), &[], &[Grant::KeyValue]).await;
    assert_eq!(told(&with, &host, "/kv/get?key=k").await, "Ok(Some(\"canary\"))");
}

#[tokio::test]
async fn calls_of_the_key_value_store_are_bounded_and_counted() {
    let host = Recorder::new();
    let handler = all(HandlerLimits { kv_calls: 20, ..roomy() }, &[]).await;
    assert_eq!(told(&handler, &host, "/kv/set/long?key=k&bytes=1048576").await, "Ok(())");
    let key = "k".repeat(513);
    for (path, wanted) in [
        ("/kv/set/long?key=k&bytes=1048577".to_owned(), "the value has 1048577 bytes; at most"),
        (format!("/kv/set?key={key}&value=v"), "a key of 513 bytes is out of bounds: 1 to 512"),
        ("/kv/get?key=".to_owned(), "a key of 0 bytes"),
        (format!("/kv/get-many?keys={}", ["k"; 9].join(",")), "ask for fewer at once"),
        (format!("/kv/get-many?keys={}", ["n"; 21].join(",")), "raise limits.kv_calls"),
        (format!("/kv/delete-many?keys={}", ["n"; 21].join(",")), "raise limits.kv_calls"),
    ] {
        let said = told(&handler, &host, &path).await;
        assert!(said.contains("Other") && said.contains(wanted), "{path}: {said}");
    }
    assert_eq!(host.entries.lock().len(), 1);
    assert!(told(&handler, &host, "/kv/many?n=40").await.starts_with("good 20, bad 20"));
    // The next request has its own.
    assert!(told(&handler, &host, "/kv/many?n=20").await.starts_with("good 20, bad 0"));
    // Handles do not pile up in the host.
    let ended = handler.call(get("/kv/hoard"), host.clone()).await.unwrap_err();
    assert!(matches!(ended, Ended::Trapped { .. }), "{ended:?}");
}
