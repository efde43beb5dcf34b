//! The compiled router against the plain scan that it must equal.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use verge_config::site::{CachePolicy, StaticResponse, Target};

fn routes(patterns: &[String]) -> Vec<Arc<Route>> {
    let fixed = Arc::new(StaticResponse { status: 200, headers: Vec::new(), body: String::new() });
    patterns
        .iter()
        .enumerate()
        .map(|(index, text)| {
            Arc::new(Route {
                index,
                path: PathPattern::new(text),
                target: Target::Static(Arc::clone(&fixed)),
                cache: Arc::new(CachePolicy::default()),
            })
        })
        .collect()
}

fn router(patterns: &[&str]) -> Router {
    Router::new(routes(&patterns.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()))
}

fn found(router: &Router, path: &str) -> Option<usize> {
    router.find(path).map(|stop| stop.route.index)
}

#[test]
fn the_first_match_wins() {
    let router = router(&["/a/*", "/a/b", "/*.css", "/c", "/*", "/c/d"]);
    assert_eq!(found(&router, "/a/b"), Some(0));
    assert_eq!(found(&router, "/a/x.css"), Some(0));
    assert_eq!(found(&router, "/z/x.css"), Some(2));
    assert_eq!(found(&router, "/c"), Some(3));
    assert_eq!(found(&router, "/c/d"), Some(4));
    assert_eq!(found(&router, "/a"), Some(4));
    assert_eq!(found(&router, "*"), None);
    assert_eq!(found(&router, ""), None);
}

#[test]
fn an_earlier_exact_route_is_not_hidden_by_a_later_star() {
    let router = router(&["/a/b", "/a/*", "/a/b"]);
    assert_eq!(found(&router, "/a/b"), Some(0));
    assert_eq!(found(&router, "/a/b/"), Some(1));
}

fn text() -> impl Strategy<Value = String> {
    "(/[ab]{0,2}){1,3}"
}

fn pattern() -> impl Strategy<Value = String> {
    "/[ab*]{0,2}(/[ab*]{0,2}){0,2}"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn equals_the_linear_scan(patterns in prop::collection::vec(pattern(), 0..60), paths in prop::collection::vec(text(), 1..20)) {
        let routes = routes(&patterns);
        let router = Router::new(routes.clone());
        for path in paths {
            let scan = routes.iter().find(|route| route.path.matches(&path)).map(|route| route.index);
            prop_assert_eq!(found(&router, &path), scan, "{} in {:?}", path, patterns);
        }
    }
}
