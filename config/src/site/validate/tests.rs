//! Every rule of a site file, each with a document that breaks it and one that keeps it.

mod handlers;

use super::*;
use crate::site::{BreakerLimits, CacheMode, CachePosition, Coding, Grant, QueryKey, Target};
use proptest::prelude::*;
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../../examples/site.toml");

/// A site that is right, to which one thing is added.
fn with(more: &str) -> String {
    format!(
        "site = 'shop'\ndomains = ['shop.example']\n[origins.web]\nurls = ['http://127.0.0.1:9000']\n\
         [handlers.greet]\ncomponent = 'greet.wasm'\n{more}\n"
    )
}

fn faults(text: &str, context: Context) -> Vec<String> {
    match Site::from_toml(text, context) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.iter().map(ToString::to_string).collect(),
    }
}

/// The faults of a single route, added to a right site.
fn route(fields: &str) -> Vec<String> {
    faults(&with(&format!("[[routes]]\n{fields}")), Context::Standalone)
}

#[track_caller]
fn one(found: &[String], wanted: &str) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains(wanted), "{found:#?} has no {wanted:?}");
}

#[test]
fn the_example_is_valid_and_means_what_it_says() {
    let (document, site) = Site::from_toml(EXAMPLE, Context::Standalone).unwrap();
    assert_eq!(&*site.name, "shop");
    assert_eq!(site.domains[1], Domain::Wildcard("shop.example".into()));
    let web = &site.origins["web"];
    assert_eq!(web.urls.len(), 2);
    assert_eq!(web.urls[1].weight, 3);
    assert_eq!(web.host.as_deref(), Some("web.internal"));
    let CacheMode::Override(rules) = &site.routes[0].cache.mode else { panic!("no override") };
    assert_eq!(rules.of(200), Some(Duration::from_secs(86_400)));
    assert_eq!(rules.of(302), None);
    assert_eq!(site.routes[0].cache.key.query(), &QueryKey::Ignore);
    let CacheMode::Override(rules) = &site.routes[1].cache.mode else { panic!("no override") };
    assert_eq!(rules.of(204), Some(Duration::from_secs(300)));
    assert_eq!(rules.of(404), Some(Duration::from_secs(10)));
    let key = &site.routes[1].cache.key;
    assert_eq!((key.headers()[0].as_str(), &*key.cookies()[0]), ("x-device", "lang"));
    let compress = site.routes[2].cache.compress.as_ref().unwrap();
    assert_eq!((compress.min, &compress.codings[..]), (2048, &[Coding::Brotli, Coding::Gzip][..]));
    let Target::Handler { chain, origin: Some(_) } = &site.routes[3].target else {
        panic!("no handler")
    };
    assert_eq!(&**chain.name(), "greet");
    let handler = chain.first().unwrap();
    assert_eq!(handler.limits, crate::site::HandlerLimits::default());
    assert_eq!(handler.config["greeting.length"], "short");
    assert!(handler.grants.iter().eq(&Grant::ALL));
    assert_eq!(site.debug_tokens, [[0x0f; 32]]);
    assert_eq!(site.routes[3].cache.position, CachePosition::Behind);
    let Target::Handler { chain, origin: Some(_) } = &site.routes[4].target else {
        panic!("no handlers")
    };
    assert_eq!(&**chain.name(), "auth>greet");
    assert_eq!(site.routes[8].index, 8);
    // What is sent is what was written.
    let again = SiteDocument::from_json(document.to_json().as_bytes()).unwrap();
    assert_eq!(again, document);
    assert_eq!(Site::from_document(&again, Context::Standalone).unwrap(), site);
}

#[test]
fn the_example_of_the_issue() {
    let text = with(
        "[[routes]]\npath='/a'\norigin='web'\n[[routes]]\npath='/b'\norigin='web'\n[[routes]]\npath='/c'\norigin='wb'",
    );
    let found = faults(&text, Context::Standalone);
    assert_eq!(found, ["routes[2].origin: no origin named \"wb\"; did you mean \"web\"?"]);
}

#[test]
fn every_fault_at_once_of_form_and_content() {
    let text = "site = 'Shop'\ndomains = ['a b']\nextra = 1\n\
        [origins.web]\nurls = ['ftp://x']\ntimeouts = { connect = '9z', first_bite = '1s' }\n\
        [handlers.greet]\ncomponent = 7\nlimits = { cpu = '1h' }\n\
        [[routes]]\npath = 'a'\norigin = 'web'\n\
        [[routes]]\npth = '/x'\npath = '/b'\nredirect = { to = '/$2', status = 200 }\n";
    let found = faults(text, Context::Fleet);
    for place in [
        "extra: ",
        "site: ",
        "domains[0]: ",
        "origins.web.urls[0]: ",
        "origins.web.timeouts.connect: ",
        "origins.web.timeouts.first_bite: unknown field; did you mean \"first_byte\"?",
        "handlers.greet.component: invalid type: integer `7`, expected a string",
        "handlers.greet.limits.cpu: 1h is out of bounds: 1ms to 10s",
        "routes[0].path: ",
        "routes[1].pth: unknown field; did you mean \"path\"?",
        "routes[1].redirect.to: $2 is not there",
        "routes[1].redirect.status: ",
    ] {
        let hits = found.iter().filter(|fault| fault.starts_with(place)).count();
        assert_eq!(hits, 1, "{place:?} in {found:#?}");
    }
    assert_eq!(found.len(), 12, "{found:#?}");
}

#[test]
fn an_empty_file_is_told_what_it_lacks() {
    let found = faults("", Context::Fleet);
    let places: Vec<_> = found.iter().map(|f| f.split(':').next().unwrap()).collect();
    assert_eq!(places, ["site", "domains", "routes"]);
}

#[test]
fn domains() {
    let domains = |list: &str, context| {
        let text = with("[[routes]]\npath='/*'\norigin='web'")
            .replace("['shop.example']", list)
            .replace("greet.wasm", &format!("sha256:{}", "0".repeat(64)));
        faults(&text, context)
    };
    let (alone, fleet) = (Context::Standalone, Context::Fleet);
    for list in [
        "['*']",
        "['127.0.0.1', '[::1]', 'localhost']",
        "['SHOP.example.']",
        "['bücher.example']",
        "['*.localhost']",
        "['*.org']",
    ] {
        assert_eq!(domains(list, alone), [""; 0], "{list}");
    }
    one(&domains("['*']", fleet), "domains[0]: \"*\" is for standalone edges");
    one(&domains("['*.org']", fleet), "too wide");
    one(&domains("['*', 'a.example']", alone), "must be alone");
    one(
        &domains("['a.example', 'A.example.']", alone),
        "domains[1]: \"A.example.\" is there already",
    );
    for odd in [
        "a b",
        "a.*.b",
        "http://a.example",
        "a.example:80",
        "",
        "a..b",
        "*.127.0.0.1",
        "a/b",
        "[::1",
        "-a.example",
        "a_b.example",
    ] {
        assert_eq!(domains(&format!("['{odd}']"), alone).len(), 1, "{odd}");
    }
    let many: Vec<String> = (0..101).map(|n| format!("'d{n}.example'")).collect();
    one(&domains(&format!("[{}]", many.join(",")), alone), "101 entries; at most 100");
    let (_, site) = Site::from_toml(
        &with("[[routes]]\npath='/*'\norigin='web'").replace("shop.example", "Bücher.Example."),
        alone,
    )
    .unwrap();
    assert_eq!(site.domains, [Domain::Exact("xn--bcher-kva.example".into())]);
}

#[test]
fn origins() {
    let origin = |fields: &str| {
        let text = with(&format!("[origins.o]\n{fields}\n[[routes]]\npath='/*'\norigin='o'"));
        Site::from_toml(&text, Context::Standalone).map(|(_, site)| site.origins["o"].clone())
    };
    let urls = |list: &str| origin(&format!("urls = {list}"));
    let first = |list: &str| urls(list).unwrap().urls[0].clone();
    assert_eq!(first("['HTTPS://Web.Example']").port, 443);
    assert_eq!(first("['http://Web.Example/']").host, "web.example");
    assert_eq!(first("['http://[::1]:8080']").host, "::1");
    assert_eq!(first("['http://Web_1:9000']").host, "web_1");
    assert!(first("['http://[::1]:8080']").address().is_some());
    for odd in [
        "ftp://a.example",
        "a.example",
        "http://",
        "http://a.example/path",
        "http://a.example?q",
        "http://u@a.example",
        "http://u:p@a.example",
        "http://a.example:0",
        "http://a.example:65536",
        "http:\\\\a.example",
        "http:/a.example",
        " http://a.example",
        "http://a b",
        "http://a.example#f",
        "http://*.example",
    ] {
        assert_eq!(urls(&format!("['{odd}']")).unwrap_err().0.len(), 1, "{odd}");
    }
    assert!(urls("[]").unwrap_err().to_string().contains("origins.o.urls: is missing"));
    let twice = urls("['http://a.example', 'http://a.example:80']").unwrap_err();
    assert!(twice.to_string().contains("origins.o.urls[1]"));
    let weight = urls("[{ url = 'http://a.example', weight = 0 }]").unwrap_err();
    assert!(weight.to_string().starts_with("origins.o.urls[0].weight: 0 is out of bounds"));
    let unknown = urls("[{ url = 'http://a.example', wait = 1 }]").unwrap_err();
    assert!(unknown.to_string().contains("wait: unknown field"), "{unknown}");
    let host = origin("urls = ['http://a.example']\nhost = 'B.example:8080'").unwrap();
    assert_eq!(host.host.as_deref(), Some("b.example:8080"));
    let host = origin("urls = ['http://a.example']\nhost = 'b.example/x'").unwrap_err();
    assert!(host.to_string().starts_with("origins.o.host: "));
    let slow = origin("urls = ['http://a.example']\ntimeouts = { connect = '2d' }").unwrap_err();
    assert!(slow.to_string().contains("connect: 2d is out of bounds: 1ms to 1h"));
}

#[test]
fn a_route_has_one_target() {
    assert_eq!(route("path='/*'\norigin='web'"), [""; 0]);
    assert_eq!(route("path='/*'\nhandler='greet'"), [""; 0]);
    assert_eq!(route("path='/*'\nhandler='greet'\norigin='web'"), [""; 0]);
    one(&route("path='/*'"), "routes[0]: names no target");
    one(&route("path='/*'\norigin='web'\nredirect={to='/a'}"), "several targets");
    one(&route("path='/*'\nstatic={}\nredirect={to='/a'}"), "several targets");
    one(&route("path='/*'\nhandler='gret'"), "did you mean \"greet\"?");
    one(&route("path='/*'\norigin='zzzzzz'"), "routes[0].origin: no origin named \"zzzzzz\"");
}

#[test]
fn paths() {
    for odd in ["", "a", "/a b", "/é", "/a?b", "/a#b", "/**", "/*/*/*/*/*/*/*/*/*"] {
        let found = route(&format!("path='{odd}'\norigin='web'"));
        one(&found, "routes[0].path: ");
    }
    one(&route(&format!("path='/{}'\norigin='web'", "a".repeat(2_048))), "2049 bytes long");
    assert_eq!(route("path='/*/*/*/*/*/*/*/*'\norigin='web'"), [""; 0]);
}

#[test]
fn routes_that_nothing_reaches() {
    let two = |first: &str, second: &str| {
        route(&format!("path='{first}'\norigin='web'\n[[routes]]\npath='{second}'\norigin='web'"))
    };
    one(&two("/a", "/a"), "routes[1].path: \"/a\" is never reached: routes[0] (\"/a\")");
    one(&two("/*", "/a/*"), "never reached");
    one(&two("/a*", "/a/*.css"), "never reached");
    one(&two("/a/*b", "/a/*b"), "never reached");
    for (first, second) in [("/a", "/*"), ("/a/*", "/a"), ("/a/*", "/*"), ("/*.css", "/a.css")] {
        assert_eq!(two(first, second), [""; 0], "{first} {second}");
    }
}

#[test]
fn redirects() {
    let redirect = |to: &str| route(&format!("path='/a/*/*'\nredirect={{ to = '{to}' }}"));
    for right in ["/b/$1/$2", "https://b.example/$1", "HTTP://b.example", "/cost$", "/$0"] {
        assert_eq!(redirect(right), [""; 0], "{right}");
    }
    one(&redirect("/$3"), "routes[0].redirect.to: $3 is not there: the path has 2 stars");
    for odd in ["", "b", "javascript:alert(1)", "/a b", "/é", "https://", "/\\\\evil.example"] {
        one(&redirect(odd), "routes[0].redirect.to");
    }
    one(&redirect("https://$1.example/"), "visitors would choose where to go");
    one(&redirect("https://b.example$1"), "visitors would choose where to go");
    one(&route("path='/a'\nredirect={to='/b', status=304}"), "routes[0].redirect.status");
}

#[test]
fn static_responses() {
    let fixed = |fields: &str| route(&format!("path='/a'\nstatic={{ {fields} }}"));
    assert_eq!(fixed(""), [""; 0]);
    assert_eq!(fixed("status=404, headers={ Content-Type='text/plain' }, body='no'"), [""; 0]);
    for status in [100, 199, 600] {
        one(&fixed(&format!("status={status}")), "routes[0].static.status");
    }
    one(&fixed("status=204, body='x'"), "routes[0].static.body: a 204 has no content");
    one(&fixed("headers={ 'a b'='x' }"), "is not a field's name");
    one(&fixed("headers={ a=\"x\\r\\ny: z\" }"), "is not a field's value");
    one(&fixed("headers={ Content-Length='3' }"), "written by the edge itself");
    one(&fixed(&format!("body='{}'", "x".repeat(65_537))), "at most 65536");
}

#[test]
fn cache_policies() {
    let cache = |fields: &str| route(&format!("path='/*'\norigin='web'\ncache={{ {fields} }}"));
    let handled = |more: &str, position: &str| {
        route(&format!("path='/*'\nhandler='greet'\n{more}\ncache={{ position='{position}' }}"))
    };
    for right in [
        "",
        "mode='respect', browser_ttl='0s', stale_if_error='365d'",
        "mode='override', ttl='0s'",
        "mode='override', ttl={ '404'='1s', '400-499'='2s', '200-599'='1m' }",
        "query='exclude:utm_source,utm_medium'",
        "mode='bypass'",
        "compress=true",
        "compress=false",
        "compress={}",
        "compress={ types=['text/html', 'font/*', '*+json'], min='0', codings=['br', 'gzip'] }",
        "mode='bypass', compress=false",
        "headers=['X-Device', 'accept-language'], cookies=['lang', 'LANG']",
    ] {
        assert_eq!(cache(right), [""; 0], "{right}");
    }
    for (odd, wanted) in [
        ("mode='overide', ttl='1s'", "did you mean \"override\"?"),
        ("mode='override'", "cache.ttl: is missing"),
        ("ttl='1d'", "cache.ttl: needs mode = \"override\""),
        ("mode='override', ttl='366d'", "out of bounds"),
        ("mode='override', ttl={}", "cache.ttl: is empty"),
        ("mode='override', ttl={ '2xx'='1d' }", "cache.ttl.2xx: is not a status"),
        ("mode='override', ttl={ '299-200'='1d' }", "is not a status"),
        ("mode='override', ttl={ '200-299'='1d', '250-349'='1s' }", "overlap"),
        ("mode='override', ttl=5", "a duration or"),
        ("mode='bypass', tags=['a']", "cache.tags: has no effect"),
        ("query='ignored'", "did you mean \"ignore\"?"),
        ("query='include:'", "is not a parameter's name"),
        ("headers=['x-a', 'x b']", "cache.headers[1]: \"x b\" is not a field's name"),
        ("headers=['x-a', 'X-A']", "cache.headers[1]: \"X-A\" is there already"),
        ("headers=['Cookie']", "name single cookies in \"cookies\""),
        ("headers=['Authorization']", "cache.headers[0]: \"Authorization\" cannot take part"),
        ("headers=['host']", "takes part in every key already"),
        ("headers=['range']", "one stored response for all its values"),
        ("headers=['cache-control']", "tells the cache what to do"),
        ("cookies=['a=b']", "cache.cookies[0]: \"a=b\" is not a cookie's name"),
        ("cookies=['']", "cache.cookies[0]"),
        ("header=['a']", "did you mean \"headers\"?"),
        ("compress='yes'", "cache.compress: "),
        ("compress={ type=['text/*'] }", "did you mean \"types\"?"),
        ("compress={ types=[] }", "cache.compress.types: is empty"),
        (
            "compress={ types=['text/*', '*'] }",
            "cache.compress.types[1]: \"*\" is not a media type",
        ),
        ("compress={ min='1k' }", "cache.compress.min"),
        ("compress={ min='2GiB' }", "cache.compress.min: 2GiB is out of bounds"),
        ("compress={ codings=['gz'] }", "cache.compress.codings[0]: \"gz\" is not known here"),
        ("compress={ codings=['br', 'br'] }", "cache.compress.codings[1]: \"br\" is there already"),
        ("compress={ codings=[] }", "cache.compress.codings: is empty"),
        ("mode='bypass', compress=true", "cache.compress: has no effect"),
        ("mode='bypass', cookies=['a']", "cache.cookies: has no effect"),
        ("mode='bypass', headers=['a']", "cache.headers: has no effect"),
        ("tags=['a b']", "cache.tags[0]"),
        ("tags=['']", "cache.tags[0]"),
        ("position='behind'", "is for routes with a handler"),
    ] {
        one(&cache(odd), wanted);
    }
    assert_eq!(handled("origin='web'", "both"), [""; 0]);
    assert_eq!(handled("", "before"), [""; 0]);
    one(&handled("", "behind"), "needs an origin in this route");
    one(&route("path='/a'\nredirect={to='/b'}\ncache={}"), "never stored");
}

#[test]
fn a_key_names_sixteen_fields_and_no_more() {
    let list = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("'x-{n}'")).collect();
        route(&format!("path='/*'\norigin='web'\ncache={{ headers=[{}] }}", names.join(",")))
    };
    assert_eq!(list(16), [""; 0]);
    one(&list(17), "cache.headers: 17 entries; at most 16");
}

#[test]
fn compression_is_as_the_route_says() {
    let rule = |fields: &str| {
        let text = with(&format!("[[routes]]\npath='/*'\norigin='web'\ncache={{ {fields} }}"));
        Site::from_toml(&text, Context::Standalone).unwrap().1.routes[0].cache.compress.clone()
    };
    let default = rule("").unwrap();
    assert_eq!((default.min, &default.codings[..]), (1024, &Coding::ALL[..]));
    assert!(default.takes("text/css") && !default.takes("image/png"));
    assert_eq!(rule("compress=true"), Some(default));
    assert_eq!(rule("compress=false"), None);
    let own = rule("compress={ types=['image/*'], min='2KiB', codings=['gzip', 'br'] }").unwrap();
    assert_eq!((own.min, &own.codings[..]), (2048, &[Coding::Gzip, Coding::Brotli][..]));
    assert!(!own.takes("text/css") && own.takes("image/png"));
}

#[test]
fn the_narrower_of_two_nested_rules_counts() {
    let text = with(
        "[[routes]]\npath='/*'\norigin='web'\ncache={ mode='override', ttl={ '400-499'='2s', '404'='1s' } }",
    );
    let (_, site) = Site::from_toml(&text, Context::Standalone).unwrap();
    let CacheMode::Override(rules) = &site.routes[0].cache.mode else { panic!("no override") };
    assert_eq!(rules.of(404), Some(Duration::from_secs(1)));
    assert_eq!(rules.of(405), Some(Duration::from_secs(2)));
}

#[test]
fn what_a_visitor_may_say_of_caching_reaches_every_route() {
    let text =
        with("[[routes]]\npath='/a'\norigin='web'\n[[routes]]\npath='/*'\norigin='web'\ncache={}")
            .replacen("domains", "client_cache_control = 'ignore'\ndomains", 1);
    let (_, site) = Site::from_toml(&text, Context::Standalone).unwrap();
    for route in &site.routes {
        assert_eq!(route.cache.client_cache_control, ClientCacheControl::Ignore);
    }
}

proptest! {
    /// Configuration and grants of a document come out as they went in, through JSON as well.
    #[test]
    fn capabilities_are_kept(
        config in prop::collection::btree_map("[A-Za-z0-9_.-]{1,20}", "\\PC{0,40}", 0..8),
        grants in prop::sample::subsequence(Grant::ALL.to_vec(), 0..=3),
    ) {
        let (mut document, _) =
            Site::from_toml(&with("[[routes]]\npath='/*'\nhandler='greet'"), Context::Standalone)
                .unwrap();
        let handler = document.handlers.get_mut("greet").unwrap();
        handler.config = config.clone();
        handler.grants = grants.iter().map(|grant| grant.name().to_owned()).collect();
        let again = SiteDocument::from_json(document.to_json().as_bytes()).unwrap();
        prop_assert_eq!(&again, &document);
        let site = Site::from_document(&again, Context::Standalone).unwrap();
        prop_assert_eq!(&site.handlers["greet"].config, &config);
        prop_assert!(site.handlers["greet"].grants.iter().eq(&grants));
    }

    /// Any text, and the example with any damage, is a site or a list of faults; never a panic.
    #[test]
    fn no_text_panics(text in ".{0,200}", at in 0..EXAMPLE.len(), insert in "[\\PC\n]{0,8}") {
        let _ = Site::from_toml(&text, Context::Fleet);
        let at = EXAMPLE.floor_char_boundary(at);
        let (before, after) = EXAMPLE.split_at(at);
        for text in [format!("{before}{insert}{after}"), format!("{before}{insert}")] {
            if let Err(faults) = Site::from_toml(&text, Context::Standalone) {
                prop_assert!(!faults.0.is_empty());
            }
            let _ = SiteDocument::from_json(text.as_bytes());
        }
    }

    /// A valid document is valid again after its way through JSON.
    #[test]
    fn json_keeps_a_site(ttl in 0_u32..1_000, status in 200_u16..=599, tag in "[a-z]{1,9}") {
        let text = with(&format!(
            "[[routes]]\npath='/*'\norigin='web'\ncache={{ mode='override', ttl={{ '{status}'='{ttl}s' }}, tags=['{tag}'] }}"
        ));
        let (document, site) = Site::from_toml(&text, Context::Standalone).unwrap();
        let again = SiteDocument::from_json(document.to_json().as_bytes()).unwrap();
        prop_assert_eq!(Site::from_document(&again, Context::Standalone).unwrap(), site);
    }
}
