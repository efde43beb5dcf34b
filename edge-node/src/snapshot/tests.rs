//! Hosts to sites.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::routing::{NoRoute, find};
use proptest::prelude::*;
use std::collections::BTreeMap;
use verge_config::site::{
    CachePolicy, ClientCacheControl, PathPattern, Route, StaticResponse, Target,
};

fn site(name: &str, revision: u64, domains: &[Domain]) -> Arc<SiteRuntime> {
    let route = Route {
        index: 0,
        path: PathPattern::new("/in/*"),
        target: Target::Static(Arc::new(StaticResponse {
            status: 200,
            headers: Vec::new(),
            body: String::new(),
        })),
        cache: Arc::new(CachePolicy::default()),
    };
    let site = Site {
        name: name.into(),
        domains: domains.to_vec(),
        origins: BTreeMap::new(),
        handlers: BTreeMap::new(),
        routes: vec![Arc::new(route)],
        handler_concurrency: None,
        client_cache_control: ClientCacheControl::Honour,
        debug_tokens: Vec::new(),
    };
    Arc::new(SiteRuntime::new(Parts {
        site: Arc::new(site),
        version: 1,
        revision: Revision(revision),
        digest: "".into(),
        origins: HashMap::default(),
        handlers: HashMap::default(),
        secrets: Arc::default(),
        gate: Arc::new(Gate::new(1, 1)),
    }))
}

fn exact(name: &str) -> Domain {
    Domain::Exact(name.to_owned())
}

fn below(name: &str) -> Domain {
    Domain::Wildcard(name.to_owned())
}

fn name(snapshot: &Snapshot, host: &str) -> Option<String> {
    snapshot.site_for(host).map(|site| site.name.to_string())
}

#[test]
fn each_site_has_its_own_way_outside_and_keeps_it_over_versions() {
    let settings = Arc::new(OriginSettings {
        allow_private: false,
        edge_id: "edge".into(),
        resolver: Arc::default(),
        roots: Arc::new(rustls::RootCertStore::empty()),
        own: Arc::from([]),
    });
    let [one, other, next] = [("a", 1), ("b", 1), ("a", 2)].map(|(name, n)| site(name, n, &[]));
    assert!(!Arc::ptr_eq(one.outside(&settings), other.outside(&settings)));
    let next = Arc::into_inner(next).unwrap().after(Some(&one));
    assert!(Arc::ptr_eq(one.outside(&settings), next.outside(&settings)));
}

#[test]
fn exact_then_longest_wildcard_then_any() {
    let sites = [
        site("apex", 1, &[exact("shop.example"), exact("[::1]"), exact("127.0.0.1")]),
        site("wild", 2, &[below("shop.example")]),
        site("deep", 3, &[below("eu.shop.example")]),
    ];
    let closed = Snapshot::new(Revision(3), sites.clone());
    assert_eq!(name(&closed, "shop.example"), Some("apex".into()));
    assert_eq!(name(&closed, "shop.example:8443"), Some("apex".into()));
    assert_eq!(name(&closed, "[::1]"), Some("apex".into()));
    assert_eq!(name(&closed, "[::1]:8080"), Some("apex".into()));
    assert_eq!(name(&closed, "127.0.0.1:1"), Some("apex".into()));
    assert_eq!(name(&closed, "a.shop.example:8080"), Some("wild".into()));
    assert_eq!(name(&closed, "a.b.shop.example"), Some("wild".into()));
    assert_eq!(name(&closed, "a.eu.shop.example"), Some("deep".into()));
    assert_eq!(name(&closed, "eu.shop.example"), Some("wild".into()));
    for stranger in ["", "example", "notshop.example", "shop.example.evil", "[::2]", ":80", "."] {
        assert_eq!(name(&closed, stranger), None, "{stranger}");
    }
    let open =
        Snapshot::new(Revision(3), sites.into_iter().chain([site("all", 4, &[Domain::Any])]));
    assert_eq!(name(&open, "anything"), Some("all".into()));
    assert_eq!(name(&open, ""), Some("all".into()));
    assert_eq!(name(&open, "shop.example"), Some("apex".into()));
}

#[test]
fn a_domain_given_away_belongs_to_the_later_site() {
    let old = site("old", 5, &[exact("a.example")]);
    let new = site("new", 9, &[exact("a.example")]);
    for order in [[&old, &new], [&new, &old]] {
        let snapshot = Snapshot::new(Revision(9), order.map(Arc::clone));
        assert_eq!(name(&snapshot, "a.example"), Some("new".into()));
    }
}

#[test]
fn no_route_says_which_part_is_missing() {
    let snapshot = Snapshot::new(Revision(1), [site("a", 1, &[exact("a.example")])]);
    let found = find(&snapshot, "a.example:81", "/in/x/y").unwrap();
    assert_eq!(&**found.site.name, "a");
    assert_eq!(found.captures("/in/x/y"), ["x/y"]);
    assert_eq!(find(&snapshot, "b.example", "/in/x").unwrap_err(), NoRoute::Host);
    assert_eq!(find(&snapshot, "a.example", "/out").unwrap_err(), NoRoute::Path);
}

proptest! {
    #[test]
    fn any_text_is_only_a_host(host in "\\PC{0,60}") {
        let snapshot = Snapshot::new(Revision(1), [site("a", 1, &[exact("a.example"), below("b.example")])]);
        let _ = snapshot.site_for(&host);
    }
}
