//! Handlers over HTTP: what they answer, what they may and may not do, and that a neighbour never
//! notices.

use serde_json::json;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use verge_tests::process::{binary, guest};
use verge_tests::tls::{self, Certificate};
use verge_tests::wait::within;
use verge_tests::{Control, Edge, Http1, Origin, answer, countries, site, until};

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

/// A site with the handlers in Rust, and an origin behind them.
async fn handlers() -> (Origin, Edge) {
    let origin =
        Origin::start(|seen| async move { answer(200, FRESH, format!("origin {}", seen.path)) })
            .await;
    let rest = "[handlers.hello]\ncomponent = \"hello-rust.wasm\"\n\
                env = { GREETING = \"good day\" }\n\n\
                [handlers.faulty]\ncomponent = \"faulty-rust.wasm\"\n\
                limits = { cpu = \"50ms\", memory = \"32MiB\", wall = \"2s\", fetches = 4 }\n\n\
                [[routes]]\npath = \"/plain/*\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/\"\nhandler = \"hello\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/echo\"\nhandler = \"hello\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/fetch\"\nhandler = \"hello\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/*\"\nhandler = \"faulty\"\norigin = \"web\"\n";
    let edge = Edge::standalone(site::with_routes(&origin, rest))
        .beside("hello-rust.wasm", &guest("hello-rust"))
        .beside("faulty-rust.wasm", &guest("faulty-rust"))
        .start()
        .await;
    (origin, edge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_javascript_answers() {
    let origin =
        Origin::start(|seen| async move { answer(200, FRESH, format!("origin {}", seen.path)) })
            .await;
    let rest = "[handlers.script]\ncomponent = \"hello-js.wasm\"\nlimits = { cpu = \"2s\" }\n\n\
                [[routes]]\npath = \"/page\"\norigin = \"web\"\n\n\
                [[routes]]\npath = \"/*\"\nhandler = \"script\"\norigin = \"web\"\n";
    let edge = Edge::standalone(site::with_routes(&origin, rest))
        .beside("hello-js.wasm", &guest("hello-js"))
        .start()
        .await;
    let greeting = edge.get("a.example", "/").await.expect(200);
    assert!(greeting.text().contains("JavaScript"), "{greeting:?}");
    let told = edge.get("a.example", "/json").await.expect(200).json();
    assert_eq!((&told["path"], &told["method"]), (&"/json".into(), &"GET".into()), "{told}");
    for _ in 0..3 {
        let fetched = edge.get("a.example", "/fetch?path=/page").await.expect(200);
        assert_eq!(fetched.text(), "origin /page");
        assert_eq!(fetched.field("x-handler"), "hello");
    }
    assert_eq!(origin.count("/page"), 1, "the cache stands behind the handler");
    let body = "0123456789".repeat(20_000);
    let mut client = edge.client().await;
    let echo = client.request("POST", "a.example", "/echo", &[], body.as_bytes()).await;
    assert_eq!(echo.expect(200).text(), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_rust_answers() {
    let (origin, edge) = handlers().await;
    let hello = edge.get("a.example", "/").await.expect(200);
    assert!(hello.text().contains("good day"), "{hello:?}");

    // The handler's own fetch goes to the cache and the origin behind it.
    for _ in 0..3 {
        let fetched = edge.get("a.example", "/fetch?path=/page").await.expect(200);
        assert_eq!(fetched.text(), "origin /page");
        assert_eq!(fetched.field("x-handler"), "hello");
    }
    assert_eq!(origin.count("/page"), 1, "the cache stands behind the handler");

    // Content streams in and out.
    let body = "0123456789".repeat(100_000);
    let mut client = edge.client().await;
    let echo = client.request("POST", "a.example", "/echo", &[], body.as_bytes()).await;
    assert_eq!(echo.expect(200).text(), body);
    let mut client = edge.client2().await;
    let echo = client.request("POST", "a.example", "/echo", &[], body.as_bytes()).await;
    assert_eq!(echo.expect(200).text(), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_is_one_request_s_alone() {
    let (_origin, edge) = handlers().await;
    edge.get("a.example", "/plain/a").await.expect(200);
    // The neighbours: a cached file and a handler of another component, asked all the while.
    let stop = Arc::new(AtomicBool::new(false));
    let neighbours: Vec<_> = ["/plain/a", "/"]
        .into_iter()
        .map(|path| {
            let (stop, address) = (Arc::clone(&stop), edge.http);
            tokio::spawn(async move {
                let mut client = Http1::connect(address).await;
                let (mut count, mut slowest) = (0_u32, Duration::ZERO);
                while !stop.load(Ordering::SeqCst) {
                    let started = Instant::now();
                    client.get("a.example", path).await.expect(200);
                    slowest = slowest.max(started.elapsed());
                    count += 1;
                    tokio::task::yield_now().await;
                }
                (count, slowest)
            })
        })
        .collect();

    for (path, statuses) in [
        ("/trap", &[500][..]),
        ("/spin", &[500, 503, 508]),
        ("/memory", &[500, 503]),
        ("/deep", &[500]),
        ("/exit", &[500]),
        ("/no-response", &[500]),
        ("/hang", &[500, 503, 504]),
    ] {
        for _ in 0..5 {
            let started = Instant::now();
            let reply = edge.get("a.example", path).await;
            assert!(statuses.contains(&reply.status), "{path}: {reply:?}");
            assert!(started.elapsed() < Duration::from_secs(8), "{path}: {:?}", started.elapsed());
        }
    }
    let denied = edge.get("a.example", "/fs").await;
    assert!(denied.status < 600, "{denied:?}");

    // Half a body, then a trap: told as cut, never as whole.
    let late = edge.client().await.try_request("GET", "a.example", "/late-trap", &[], b"").await;
    assert!(late.is_err() || late.as_ref().is_ok_and(|reply| !reply.whole), "{late:?}");
    let mut client = edge.client().await;
    let endless = client.try_request("GET", "a.example", "/endless", &[], b"");
    let endless = within("an endless body to be cut", endless).await;
    assert!(endless.is_err() || endless.as_ref().is_ok_and(|reply| !reply.whole));

    stop.store(true, Ordering::SeqCst);
    for neighbour in neighbours {
        let (count, slowest) = neighbour.await.unwrap();
        assert!(count > 50, "a neighbour got {count} answers");
        assert!(slowest < Duration::from_secs(2), "a neighbour waited {slowest:?}");
    }
    // Its end is told in its log.
    let log = edge.process.output();
    assert!(log.contains("trap"), "the handler's log has no line of the trap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_are_counted() {
    let (origin, edge) = handlers().await;
    let told = edge.get("a.example", "/fetch-many?n=20").await.expect(200);
    assert!(told.text().starts_with("good 4, bad 16"), "{told:?}");
    assert_eq!(origin.seen().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_round_again_is_a_loop() {
    let origin = Origin::always(200, FRESH, "here").await;
    let edge = Edge::standalone(site::plain(&origin)).start().await;
    let circle = Edge::standalone(site::plain(&origin)).start().await;
    // The site's origin is the edge itself.
    let own = site::plain(&origin).replace(&origin.url(), &format!("http://{}", circle.http));
    std::fs::write(circle.file("verge.toml"), own).unwrap();
    // Each time another path: what was stored before the loop is no proof.
    let round = AtomicUsize::new(0);
    let looped = until("the loop to be in force", || async {
        let path = format!("/plain/{}", round.fetch_add(1, Ordering::SeqCst));
        let reply = circle.get("a.example", &path).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert!(matches!(looped.status, 508 | 502), "{looped:?}");
    // The control: the same file with a real origin answers.
    edge.get("a.example", "/round").await.expect(200);
}

const CAPABILITIES: &str = "capabilities-rust";

/// A handler of each: with every grant, and below `/bare` with none; the rest is the origin's.
fn capable(component: &str) -> String {
    let all = "grants = [\"cache\", \"client\", \"secrets\"]\nconfig = { \"a.b\" = \"one\" }";
    let limits = "limits = { cpu = \"5s\" }";
    let mut text = format!(
        "[handlers.all]\ncomponent = {component:?}\n{limits}\n{all}\n\n\
         [handlers.bare]\ncomponent = {component:?}\n{limits}\n\n\
         [[routes]]\npath = \"/bare/*\"\nhandler = \"bare\"\n\n"
    );
    for path in ["/config*", "/log", "/cache/*", "/client", "/secrets*"] {
        text += &format!("[[routes]]\npath = {path:?}\nhandler = \"all\"\n\n");
    }
    text + "[[routes]]\npath = \"/*\"\norigin = \"web\"\n"
}

/// An origin whose pages carry a tag.
async fn tagged() -> Origin {
    let fields = &[("Cache-Control", "max-age=3600"), ("Cache-Tag", "shared")];
    Origin::start(move |seen| async move { answer(200, fields, format!("origin {}", seen.path)) })
        .await
}

/// A file of secrets in a folder, with these permissions.
fn secrets(folder: &Path, mode: u32) -> PathBuf {
    let path = folder.join(format!("secrets-{mode:o}.toml"));
    std::fs::write(&path, "KEY = \"canary-of-secrets\"\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A standalone edge with the handlers above, and secrets.
async fn capable_edge(origin: &Origin, folder: &Path, more: &[&str]) -> Edge {
    let secrets = secrets(folder, 0o600).display().to_string();
    let file = format!("{CAPABILITIES}.wasm");
    Edge::standalone(site::with_routes(origin, &capable(&file)))
        .beside(&file, &guest(CAPABILITIES))
        .with(&["--secrets", &secrets])
        .with(more)
        .start()
        .await
}

/// What the guest says of a path.
async fn said(edge: &Edge, path: &str) -> String {
    edge.get("a.example", path).await.expect(200).text().trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_site_grants_works_and_the_rest_says_what_to_add() {
    let (origin, folder) = (tagged().await, tempfile::tempdir().unwrap());
    let edge = capable_edge(&origin, folder.path(), &[]).await;
    assert_eq!(said(&edge, "/config?key=a.b").await, "Some(\"one\")");
    assert_eq!(said(&edge, "/bare/config?key=a.b").await, "None", "it is the handler's own");
    for (path, name) in [
        ("/bare/cache/get?key=k", "cache"),
        ("/bare/cache/put?key=k&value=v", "cache"),
        ("/bare/cache/purge?tags=shared", "cache"),
        ("/bare/client", "client"),
        ("/bare/secrets?name=KEY", "secrets"),
    ] {
        let told = said(&edge, path).await;
        assert!(told.contains("NotGranted") && told.contains(name), "{path}: {told}");
        assert!(told.contains("add it to the grants of [handlers.bare]"), "{path}: {told}");
        let with = said(&edge, path.strip_prefix("/bare").unwrap()).await;
        assert!(!with.contains("NotGranted"), "{path}: {with}");
    }
    let told = said(&edge, "/client").await;
    for part in ["\"127.0.0.1\"", "Scheme::Http,", "tls: None", "country: None", "\"standalone\""] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(said(&edge, "/log?context=cart&message=full").await, "logged");
    let log = until("the handler's log", || async {
        let log = edge.process.output();
        log.contains("severity=\"critical\"").then_some(log)
    })
    .await;
    let line = log.lines().find(|line| line.contains("severity=\"warn\"")).unwrap();
    assert!(line.contains("context=\"cart\"") && line.contains("full"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_connection_is_known_to_a_handler() {
    let (origin, folder) = (tagged().await, tempfile::tempdir().unwrap());
    let certificate = Certificate::make(folder.path(), &["a.example"]);
    let file = format!("{CAPABILITIES}.wasm");
    let edge = Edge::standalone(site::with_routes(&origin, &capable(&file)))
        .beside(&file, &guest(CAPABILITIES))
        .tls(&[&certificate])
        .start()
        .await;
    let connection =
        tls::connect(edge.https.unwrap(), "a.example", &["http/1.1"], &[&certificate]).await;
    let told = connection.http1().get("a.example", "/client").await.expect(200).text();
    for part in ["Scheme::Https", "\"TLSv1.3\"", "Some(\"a.example\")", "\"127.0.0.1\""] {
        assert!(told.contains(part), "{part} in {told}");
    }
    // Without a file of secrets there are none.
    assert_eq!(said(&edge, "/secrets?name=KEY").await, "Ok(None)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_is_in_the_country_that_the_operators_database_names() {
    let (origin, folder) = (tagged().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("countries.mmdb");
    let arguments = ["--country-database", path.to_str().unwrap()];
    let here = |code| (IpAddr::from([127, 0, 0, 0]), 8, code);
    let elsewhere = (IpAddr::from([192, 0, 2, 0]), 24, "FR");
    countries::write(&path, &[elsewhere, here("DE")]);
    let edge = capable_edge(&origin, folder.path(), &arguments).await;
    let told = said(&edge, "/client").await;
    assert!(told.contains("country: Some(\"DE\")"), "{told}");
    // Another file takes its place at SIGHUP; what is no database does not.
    let read_again = async |expected: &str| {
        edge.process.signal("-HUP").unwrap();
        until(expected, || async { edge.process.output().contains(expected).then_some(()) }).await;
        said(&edge, "/client").await
    };
    std::fs::write(&path, "no database").unwrap();
    let told = read_again("the database of countries in force stays").await;
    assert!(told.contains("country: Some(\"DE\")"), "{told}");
    countries::write(&path, &[elsewhere]);
    let told = read_again("the database of countries was read again").await;
    assert!(told.contains("country: None"), "{told}");
    countries::write(&path, &[here("de")]);
    drop(edge);
    let edge = capable_edge(&origin, folder.path(), &arguments).await;
    let told = said(&edge, "/client").await;
    assert!(told.contains("country: None"), "not a code: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_s_values_are_purged_as_all_else_and_no_visitor_reaches_them() {
    let (origin, folder) = (tagged().await, tempfile::tempdir().unwrap());
    let disk = folder.path().join("disk").display().to_string();
    // In memory, and with all of it on a disk.
    for more in [&[][..], &["--cache-dir", &disk, "--ram", "0"]] {
        let edge = capable_edge(&origin, folder.path(), more).await;
        let put = async || {
            assert_eq!(said(&edge, "/cache/put?key=k&value=v&tags=shared,own").await, "Ok(())");
            assert_eq!(said(&edge, "/cache/get?key=k").await, "Ok(Some(\"v\"))");
        };
        let get = async || said(&edge, "/cache/get?key=k").await;
        let is_hit = async || edge.get("a.example", "/page").await.expect(200).is_hit();
        assert_eq!(get().await, "Ok(None)");
        put().await;
        is_hit().await;
        assert!(is_hit().await);
        // By the handler: what it put, and what visitors are served.
        assert_eq!(said(&edge, "/cache/purge?tags=nothing").await, "Ok(0)");
        assert_eq!(said(&edge, "/cache/purge?tags=SHARED").await, "Ok(2)");
        assert_eq!(get().await, "Ok(None)");
        assert!(!is_hit().await);
        // By the operator.
        for selector in [json!({"tag": "own"}), json!({"everything": true})] {
            put().await;
            edge.purge(&json!({"selectors": [selector]})).await.expect(201);
            assert_eq!(get().await, "Ok(None)", "{selector}");
        }
        // What is put again takes the place of what was there, whatever its length.
        put().await;
        assert_eq!(said(&edge, "/cache/put?key=k&value=&tags=own").await, "Ok(())");
        assert_eq!(get().await, "Ok(Some(\"\"))");
        assert_eq!(said(&edge, "/cache/put/long?key=long&bytes=1048576").await, "Ok(())");
        assert_eq!(
            said(&edge, "/cache/get?key=long").await.len(),
            1_048_576 + "Ok(Some(\"\"))".len()
        );
        // Whatever a visitor calls its host, it gets and changes nothing of it.
        put().await;
        for host in ["HANDLER", "handler", "a.example"] {
            for method in ["GET", "POST", "DELETE"] {
                let mut client = edge.client().await;
                let reply = client.request(method, host, "/k", &[], b"").await.expect(200);
                assert_eq!(reply.text(), "origin /k", "{method} {host}");
            }
        }
        assert_eq!(get().await, "Ok(Some(\"v\"))");
        // It is fresh for as long as it was put for, and no longer.
        assert_eq!(said(&edge, "/cache/put?key=short&value=v&ttl=1").await, "Ok(())");
        until("a value to be over", || async {
            (said(&edge, "/cache/get?key=short").await == "Ok(None)").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_site_sees_another_s_values_or_purges_them() {
    let (origin, control) = (tagged().await, Control::start().await);
    let edge = Edge::join(&control, "one").await;
    let component = control.upload(&guest(CAPABILITIES)).await;
    let mut revision = 0;
    for name in ["shop", "other"] {
        let host = format!("{name}.example");
        let text = site::for_domains(name, &[&host], &origin, &capable(&component));
        revision = control.deploy(name, &text).await;
    }
    control.applied(revision, &["one"]).await;
    let said = async |site: &str, path: &str| {
        let reply = edge.get(&format!("{site}.example"), path).await.expect(200);
        reply.text().trim_end().to_owned()
    };
    assert_eq!(said("shop", "/cache/put?key=k&value=v&tags=t").await, "Ok(())");
    assert_eq!(said("other", "/cache/get?key=k").await, "Ok(None)");
    assert_eq!(said("other", "/cache/purge?tags=t").await, "Ok(0)");
    assert_eq!(said("other", "/cache/put?key=k&value=w&tags=t").await, "Ok(())");
    assert_eq!(said("shop", "/cache/get?key=k").await, "Ok(Some(\"v\"))");
    assert_eq!(said("shop", "/cache/purge?tags=t").await, "Ok(1)");
    assert_eq!(said("other", "/cache/get?key=k").await, "Ok(Some(\"w\"))");
    // The control plane's purges reach it, too.
    let purge = json!({"site": "other", "selectors": [{"tag": "t"}]});
    let receipt = control.purge("?wait=all&timeout=30s", &purge).await.json();
    assert_eq!(receipt["matched"], 1, "{receipt}");
    assert_eq!(said("other", "/cache/get?key=k").await, "Ok(None)");
    // The edge's own id; and no secrets, since none were put.
    assert!(said("shop", "/client").await.contains("\"one\""));
    assert_eq!(said("shop", "/secrets?name=KEY").await, "Ok(None)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_in_no_log() {
    let (origin, folder) = (tagged().await, tempfile::tempdir().unwrap());
    let edge = capable_edge(&origin, folder.path(), &["--access-log"]).await;
    let told = said(&edge, "/secrets?name=KEY").await;
    assert!(told.ends_with(" is canary-of-secrets"), "{told}");
    assert_eq!(said(&edge, "/secrets?name=key").await, "Ok(None)");
    edge.get("a.example", "/secrets/leak?name=KEY").await.expect(500);
    let log = until("the careless handler's lines", || async {
        let log = edge.process.output();
        (log.contains("context=\"leak\"") && log.contains("trapped")).then_some(log)
    })
    .await;
    assert!(!log.contains("canary"), "{log}");
    for path in ["/metrics", "/explain?url=http%3A%2F%2Fa.example%2Fsecrets"] {
        assert!(!edge.admin(path).await.text().contains("canary"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_secrets_that_others_can_read_is_refused() {
    let (origin, folder) = (tagged().await, tempfile::tempdir().unwrap());
    for (mode, good) in [(0o644, false), (0o640, false), (0o602, false), (0o600, true)] {
        let path = secrets(folder.path(), mode).display().to_string();
        let standalone = Edge::standalone(site::plain(&origin));
        let (arguments, _files) = standalone.with(&["--check", "--secrets", &path]).prepare();
        let mut command = Command::new(binary("verge-edge"));
        command.args(arguments);
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = within("the check", run).await.unwrap();
        assert_eq!(output.status.success(), good, "{mode:o}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(told.contains("can be used by others"), !good, "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
}
