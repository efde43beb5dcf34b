//! Handlers: what they may use, what takes their place, chains of them.

use super::*;

#[test]
fn handlers() {
    let handler = |fields: &str, context| {
        let text = with(&format!("[handlers.h]\n{fields}\n[[routes]]\npath='/*'\nhandler='h'"))
            .replace("greet.wasm", &format!("sha256:{}", "0".repeat(64)));
        faults(&text, context)
    };
    let alone =
        |fields: &str| handler(&format!("component='h.wasm'\n{fields}"), Context::Standalone);
    let digest = format!("component = 'sha256:{}'", "a1".repeat(32));
    assert_eq!(handler(&digest, Context::Fleet), [""; 0]);
    assert_eq!(handler(&digest, Context::Standalone), [""; 0]);
    one(
        &handler("component = 'h.wasm'", Context::Fleet),
        "handlers.h.component: \"h.wasm\" is a path",
    );
    one(&handler("component = 'sha256:A1'", Context::Standalone), "64 lower-case hexadecimal");
    one(&handler("", Context::Standalone), "handlers.h.component: is missing");
    one(&alone("limits = { cpu = '11s' }"), "handlers.h.limits.cpu");
    one(&alone("limits = { wall = '16m' }"), "handlers.h.limits.wall");
    one(&alone("limits = { memory = '2GiB' }"), "handlers.h.limits.memory");
    one(&alone("limits = { fetches = 1001 }"), "handlers.h.limits.fetches");
    one(&alone("limits = { fetches = -1 }"), "handlers.h.limits.fetches");
    one(&alone("limits = { cache_calls = 1001 }"), "handlers.h.limits.cache_calls: 1001 is out of");
    one(&alone("limits = { kv_calls = 1001 }"), "handlers.h.limits.kv_calls: 1001 is out of");
    assert_eq!(alone("limits = { kv_calls = 0 }"), [""; 0]);
    one(&alone("limits = { cache_call = 1 }"), "did you mean \"cache_calls\"?");
    assert_eq!(alone("limits = { cpu='10s', wall='15m', memory='1GiB', fetches=0 }"), [""; 0]);
    assert_eq!(alone("limits = { cache_calls = 0 }"), [""; 0]);
    one(&alone("env = { '1A' = 'x' }"), "handlers.h.env.1A: is not a variable's name");
    one(&alone("env = { A = \"a\\u0000\" }"), "zero byte");
    one(&alone(&format!("env = {{ A = '{}' }}", "x".repeat(65_536))), "at most 65536");
    assert_eq!(alone("fetch = ['api.example.com', '*.example.com:8443', '[::1]:80']"), [""; 0]);
    for odd in ["*", "a.*", "http://a.example", "a.example:0", "a.example:x", ""] {
        one(&alone(&format!("fetch = ['{odd}']")), "handlers.h.fetch[0]");
    }
}

#[test]
fn capabilities_of_handlers() {
    let handler = |fields: &str| {
        let text = with("[[routes]]\npath='/*'\nhandler='greet'");
        faults(&text.replace("[[routes]]", &format!("{fields}\n[[routes]]")), Context::Standalone)
    };
    for right in [
        "grants = []",
        "grants = ['secrets', 'cache', 'client', 'keyvalue']",
        "config = {}",
        "config = { KEY = '', 'feature.new-page_2' = \"any text\\n\" }",
    ] {
        assert_eq!(handler(right), [""; 0], "{right}");
    }
    for (odd, wanted) in [
        ("grants = ['cahce']", "grants[0]: \"cahce\" is not known here; did you mean \"cache\"?"),
        (
            "grants = ['cache', 'x']",
            "grants[1]: \"x\" is not known here; write one of cache, client",
        ),
        ("grants = ['cache', 'cache']", "handlers.greet.grants[1]: \"cache\" is there already"),
        ("grants = ['logging']", "\"logging\" needs no grant: every handler has it"),
        ("grants = ['config']", "\"config\" needs no grant"),
        ("grants = 'cache'", "handlers.greet.grants: invalid type"),
        ("grant = ['cache']", "did you mean \"grants\"?"),
        ("config = { 'a b' = 'x' }", "handlers.greet.config.\"a b\": is not a key"),
        ("config = { '' = 'x' }", "is not a key"),
        ("config = { KEY = 1 }", "handlers.greet.config.KEY: invalid type"),
        ("conf = { KEY = 'x' }", "did you mean \"config\"?"),
    ] {
        one(&handler(odd), wanted);
    }
    let value = |bytes: usize| handler(&format!("config = {{ KEY = '{}' }}", "x".repeat(bytes)));
    assert_eq!(value(65_533), [""; 0]);
    one(&value(65_534), "handlers.greet.config: 65537 bytes of names and values; at most 65536");
    one(&handler(&format!("config = {{ {} = 'x' }}", "k".repeat(129))), "is not a key");
    let many: Vec<String> = (0..129).map(|n| format!("K{n} = ''")).collect();
    one(&handler(&format!("config = {{ {} }}", many.join(", "))), "129 entries; at most 128");
    let many = vec!["'cache'"; 129].join(",");
    let found = handler(&format!("grants = [{many}]"));
    assert!(found.iter().any(|fault| fault.contains("grants: 129 entries")), "{found:#?}");
}

#[test]
fn what_takes_a_failing_handlers_place() {
    let site = |handler: &str, route: &str| {
        let text = with(&format!(
            "on_failure = {handler}\n[[routes]]\npath='/*'\nhandler='greet'\n{route}"
        ));
        Site::from_toml(&text, Context::Standalone).map(|(_, site)| site)
    };
    let told = |handler: &str, route: &str| match site(handler, route) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(told("'error'", ""), [""; 0]);
    one(&told("'ignore'", ""), "handlers.greet.on_failure");
    one(&told("'bypass'", ""), "handlers.greet.on_failure: \"bypass\" needs an origin; routes[0]");
    assert_eq!(told("'bypass'", "origin='web'"), [""; 0]);
    one(&told("'stale'", ""), "handlers.greet.on_failure: \"stale\" needs a cache before");
    let before = "cache = { position = 'before' }";
    let window = site("'stale'", before).unwrap().routes[0].cache.stale_if_error;
    assert_eq!(window, Some(BreakerLimits::STALE));
    let own = "cache = { position = 'both', stale_if_error = '5s' }";
    let window = site("'stale'", &format!("origin='web'\n{own}")).unwrap().routes[0].cache.clone();
    assert_eq!(window.stale_if_error, Some(Duration::from_secs(5)));
    assert_eq!(site("'error'", before).unwrap().routes[0].cache.stale_if_error, None);
}

#[test]
fn what_takes_a_failing_links_place() {
    let told = |auth: &str, greet: &str, route: &str| {
        let text = with(&format!(
            "{greet}\n[handlers.auth]\ncomponent='auth.wasm'\n{auth}\n\
             [[routes]]\npath='/*'\nhandlers=['auth', 'greet']\n{route}"
        ));
        Site::from_toml(&text, Context::Standalone).map(|(_, site)| site)
    };
    let faults = |auth: &str, greet: &str, route: &str| match told(auth, greet, route) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.iter().map(ToString::to_string).collect(),
    };
    let (bypass, stale) = ("on_failure='bypass'", "on_failure='stale'");
    let before = "cache={ position='before' }";
    // The next one takes the place of the first, the origin that of the last.
    assert_eq!(faults(bypass, "", ""), [""; 0]);
    one(
        &faults("", bypass, ""),
        "handlers.greet.on_failure: \"bypass\" needs an origin; routes[0]",
    );
    assert_eq!(faults(bypass, bypass, "origin='web'"), [""; 0]);
    // The cache stands before the first alone.
    one(&faults(stale, "", ""), "handlers.auth.on_failure: \"stale\" needs a cache before");
    one(&faults("", stale, before), "handlers.greet.on_failure: \"stale\" needs a cache before");
    let window = |auth, greet| told(auth, greet, before).unwrap().routes[0].cache.stale_if_error;
    assert_eq!(window(stale, ""), Some(BreakerLimits::STALE));
    assert_eq!(window("", ""), None);
}

#[test]
fn a_chain_of_handlers() {
    let names = |count: usize| (0..count).map(|n| format!("'h{n}'")).collect::<Vec<_>>().join(",");
    let chain = |fields: &str| {
        let handlers: String =
            (0..9).map(|n| format!("[handlers.h{n}]\ncomponent='h.wasm'\n")).collect();
        let text = with(&format!("{handlers}[[routes]]\npath='/*'\n{fields}"));
        Site::from_toml(&text, Context::Standalone).map(|(_, site)| site.routes[0].target.clone())
    };
    let told = |fields: &str| match chain(fields) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.iter().map(ToString::to_string).collect(),
    };
    for fields in ["handlers=['greet']", "handlers=['h1','greet']\norigin='web'"] {
        assert_eq!(told(fields), [""; 0], "{fields}");
    }
    let Target::Handler { chain, origin } = chain(&format!("handlers=[{}]", names(8))).unwrap()
    else {
        panic!("no handlers")
    };
    assert_eq!((&**chain.name(), origin), ("h0>h1>h2>h3>h4>h5>h6>h7", None));
    for (odd, wanted) in [
        ("handlers=[]", "routes[0].handlers: is empty"),
        ("handler='greet'\nhandlers=['h1']", "routes[0].handlers: stands beside handler"),
        ("handlers=['h1','h2','h1']", "routes[0].handlers[2]: \"h1\" is there already"),
        (
            "handlers=['h1','gret']",
            "routes[0].handlers[1]: no handler named \"gret\"; did you mean \"greet\"?",
        ),
        ("handlers=['h1']\nredirect={to='/a'}", "several targets"),
        ("handlers=['h1']\nstatic={}", "several targets"),
        ("handlers='h1'", "routes[0].handlers: invalid type"),
        ("handlers=['h1']\ncache={ position='behind' }", "needs an origin in this route"),
    ] {
        one(&told(odd), wanted);
    }
    one(&told(&format!("handlers=[{}]", names(9))), "handlers: 9 entries; at most 8");
}

#[test]
fn hosts_of_origins_are_no_sites_and_need_no_leave() {
    for domain in ["web.origin.alt", "origin.alt", "*.origin.alt", "*.a.ORIGIN.alt.", "*.alt"] {
        let text = with("[[routes]]\npath='/*'\norigin='web'").replace("shop.example", domain);
        for context in [Context::Standalone, Context::Fleet] {
            let found = faults(&text, context);
            let told = found.iter().filter(|fault| fault.starts_with("domains[0]: ")).count();
            assert_eq!(told, 1, "{domain}: {found:#?}");
        }
    }
    let text = with("fetch=['web.Origin.alt:8080']\n[[routes]]\npath='/*'\nhandler='greet'");
    one(&faults(&text, Context::Standalone), "handlers.greet.fetch[0]: ");
    let text = with("fetch=['origin.alt.example']\n[[routes]]\npath='/*'\nhandler='greet'");
    assert_eq!(faults(&text, Context::Standalone), [""; 0]);
}

#[test]
fn breakers_and_the_share_of_an_edge() {
    let greet = |fields: &str| {
        let text = with(&format!("{fields}\n[[routes]]\npath='/*'\nhandler='greet'"));
        Site::from_toml(&text, Context::Standalone).map(|(_, site)| site.handlers["greet"].breaker)
    };
    assert_eq!(greet("").unwrap(), BreakerLimits::default());
    let set = greet("breaker = { failures = 3, window = '1s' }").unwrap();
    assert_eq!(set, BreakerLimits { failures: 3, window: Duration::from_secs(1) });
    for (wrong, place) in [
        ("failures = 0", "handlers.greet.breaker.failures"),
        ("failures = -1", "handlers.greet.breaker.failures"),
        ("window = '1h'", "handlers.greet.breaker.window"),
        ("windows = '1s'", "handlers.greet.breaker.windows"),
    ] {
        let faults = greet(&format!("breaker = {{ {wrong} }}")).unwrap_err();
        assert!(faults.to_string().contains(place), "{faults}");
    }
    let share = |count: &str| {
        let text = format!(
            "handler_concurrency = {count}\n{}",
            with("[[routes]]\npath='/*'\norigin='web'")
        );
        Site::from_toml(&text, Context::Standalone).map(|(_, site)| site.handler_concurrency)
    };
    assert_eq!(share("64").unwrap(), Some(64));
    for wrong in ["0", "100001", "-1", "'many'"] {
        let faults = share(wrong).unwrap_err();
        assert!(faults.to_string().contains("handler_concurrency"), "{faults}");
    }
}
