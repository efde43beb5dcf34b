//! When two sites' domains clash. Pure.

use super::State;
use std::collections::BTreeMap;

/// The first of `wanted` that `site` of `tenant` may not have: because another site has it, or, across
/// tenants, because it overlaps one (`a.shop.example` lies under `*.shop.example`), which would let
/// one tenant take visitors from another.
pub(super) fn clash<'d>(
    state: &State,
    tenant: &str,
    site: &str,
    wanted: &'d [String],
) -> Option<&'d str> {
    let taken = |domain: &str| state.domains.get(domain).filter(|owner| *owner != site);
    let foreign = |owner: &str| state.sites.get(owner).is_none_or(|s| s.tenant != tenant);
    wanted.iter().map(String::as_str).find(|domain| {
        taken(domain).is_some()
            || above(domain).any(|wide| taken(&wide).is_some_and(|owner| foreign(owner)))
            || below(&state.domains, domain).any(|owner| owner != site && foreign(owner))
    })
}

/// The site that answers a host: an exact domain before a wildcard, a longer wildcard before a shorter.
pub(super) fn owner<'s>(domains: &'s BTreeMap<String, String>, host: &str) -> Option<&'s str> {
    let wide = above(host).find_map(|wide| domains.get(&wide));
    domains.get(host).or(wide).map(String::as_str)
}

/// The wildcards that hold `domain`.
fn above(domain: &str) -> impl Iterator<Item = String> {
    let name = domain.strip_prefix("*.").unwrap_or(domain);
    name.match_indices('.').filter_map(|(at, _)| name.get(at..).map(|rest| format!("*{rest}")))
}

/// The sites with a domain that the wildcard `domain` holds.
fn below<'s>(domains: &'s BTreeMap<String, String>, domain: &str) -> impl Iterator<Item = &'s str> {
    let suffix = domain.strip_prefix('*').map(str::to_owned);
    domains
        .iter()
        .filter(move |(name, _)| suffix.as_ref().is_some_and(|suffix| name.ends_with(suffix)))
        .map(|(_, site)| site.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SiteRecord;
    use verge_config::Revision;

    fn state(taken: &[(&str, &str, &str)]) -> State {
        let mut state = State::default();
        for (domain, site, tenant) in taken {
            state.domains.insert((*domain).to_owned(), (*site).to_owned());
            let record = SiteRecord {
                tenant: (*tenant).to_owned(),
                versions: BTreeMap::new(),
                latest: 0,
                active: None,
                previous: None,
                revision: Revision::ZERO,
                removed: false,
                previews: crate::state::PreviewSet::default(),
                secrets: crate::state::SecretSet::default(),
                entries: crate::state::Entries::default(),
            };
            state.sites.insert((*site).to_owned(), record);
        }
        state
    }

    fn clashes(state: &State, tenant: &str, site: &str, domain: &str) -> bool {
        clash(state, tenant, site, &[domain.to_owned()]).is_some()
    }

    #[test]
    fn equal_domains_clash_between_sites_and_not_within_one() {
        let state = state(&[("shop.example", "shop", "a")]);
        assert!(clashes(&state, "a", "other", "shop.example"));
        assert!(clashes(&state, "b", "other", "shop.example"));
        assert!(!clashes(&state, "a", "shop", "shop.example"));
        assert!(!clashes(&state, "b", "other", "xshop.example"));
    }

    #[test]
    fn the_closest_domain_answers_a_host() {
        let state = state(&[
            ("a.b.example", "exact", "a"),
            ("*.b.example", "near", "a"),
            ("*.example", "far", "a"),
        ]);
        for (host, site) in [
            ("a.b.example", Some("exact")),
            ("x.b.example", Some("near")),
            ("y.x.b.example", Some("near")),
            ("b.example", Some("far")),
            ("example", None),
            ("", None),
        ] {
            assert_eq!(state.site_for(host), site, "{host}");
        }
    }

    #[test]
    fn overlaps_clash_across_tenants_only() {
        let state = state(&[("*.shop.example", "shop", "a"), ("x.y.example", "y", "a")]);
        assert!(clashes(&state, "b", "other", "a.shop.example"));
        assert!(clashes(&state, "b", "other", "*.a.shop.example"));
        assert!(clashes(&state, "b", "other", "*.y.example"));
        assert!(!clashes(&state, "a", "other", "a.shop.example"));
        assert!(!clashes(&state, "a", "other", "*.y.example"));
        assert!(!clashes(&state, "b", "other", "shop.example"));
    }
}
