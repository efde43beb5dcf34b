//! Decides about entries of sites' key-value stores by what there is of them in number and bytes. Pure;
//! holds no value but the one that is written.

use super::decide::{Decided, decided, missing, unchanged};
use super::{Actor, Change, Decision, Entries, EntryWrite, Outcome, Rejection, SiteRecord, State};
use verge_config::kv::{check_key, check_value, weight};
use verge_config::{Faults, Revision};

/// What a write changes.
pub(super) fn write(state: &State, actor: &Actor, write: &EntryWrite, now_ms: u64) -> Decided {
    let EntryWrite { site: name, key, value, by_handler, held } = write;
    let site = match by_handler {
        // Edges are told of every site that is served, and of no other.
        true => state.sites.get(name).filter(|site| site.active.is_some()),
        false => state.site(&actor.tenant, name),
    };
    let site = site.ok_or_else(|| missing("site", name))?;
    let invalid = |path: &str, fault| Rejection::Invalid(Faults::one(path, fault));
    check_key(key).map_err(|fault| invalid("key", fault))?;
    if let Some(value) = value {
        check_value(value).map_err(|fault| invalid("value", fault))?;
    }
    let now = after(state, site, write)?;
    let (existed, revision) = (held.is_some(), now.revision);
    if value.is_none() && !existed {
        return unchanged(Outcome::Entry { revision: site.entries.revision, existed });
    }
    let change = Change::EntryWritten {
        site: name.clone(),
        key: key.clone(),
        value: value.clone(),
        at_ms: now_ms,
        after: site.entries.revision,
        now,
    };
    let outcome = Outcome::Entry { revision, existed };
    if *by_handler {
        // What handlers do is theirs; it would push the acts of people out of the audit log.
        return Ok(Decision { changes: vec![change], outcome, audit: None });
    }
    let action = if value.is_some() { "kv.put" } else { "kv.delete" };
    decided(vec![change], outcome, action, format!("{name}/{key}"))
}

/// All of the site's entries after a write, within the limits.
fn after(state: &State, site: &SiteRecord, write: &EntryWrite) -> Result<Entries, Rejection> {
    let Entries { count, bytes, .. } = site.entries;
    let (count, bytes) = match write.held {
        Some(held) => (count.saturating_sub(1), bytes.saturating_sub(held)),
        None => (count, bytes),
    };
    let revision = state.revision.next();
    let Some(value) = &write.value else { return Ok(Entries { revision, count, bytes }) };
    let (count, bytes) = (count.saturating_add(1), bytes.saturating_add(weight(&write.key, value)));
    let quotas = &state.quotas;
    if count > quotas.entries_per_site {
        let limit = quotas.entries_per_site;
        return Err(Rejection::Limit { what: "keys of this site's key-value store", limit });
    }
    if bytes > quotas.entry_bytes_per_site {
        let limit = quotas.entry_bytes_per_site;
        return Err(Rejection::Limit {
            what: "bytes of the keys and values of this site's key-value store",
            limit,
        });
    }
    Ok(Entries { revision, count, bytes })
}

/// Entries go with their site, under a revision of their own: should the site be made anew before an edge
/// that was away is back, it is told of the new site alone.
pub(super) fn dropped(name: &str, site: &SiteRecord, revision: Revision) -> Option<Change> {
    let now = Entries { revision, count: 0, bytes: 0 };
    (site.entries.count > 0).then(|| Change::EntriesDropped { site: name.to_owned(), now })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::PreviewSet;
    use std::collections::BTreeMap;

    fn state() -> State {
        let mut state = State { revision: Revision(9), ..State::default() };
        state.quotas.entries_per_site = 2;
        state.quotas.entry_bytes_per_site = 100;
        let site = SiteRecord {
            tenant: "t".to_owned(),
            versions: BTreeMap::new(),
            latest: 1,
            active: Some(1),
            previous: None,
            revision: Revision(3),
            removed: false,
            secrets: Default::default(),
            previews: PreviewSet::default(),
            entries: Entries { revision: Revision(7), count: 2, bytes: 60 },
        };
        state.sites.insert("s".to_owned(), site);
        state
    }

    fn decide(held: Option<u64>, value: Option<usize>, by_handler: bool, tenant: &str) -> Decided {
        let actor = Actor { id: String::new(), name: String::new(), tenant: tenant.to_owned() };
        let value = value.map(|bytes| vec![b'v'; bytes].into());
        let write =
            EntryWrite { site: "s".to_owned(), key: "k".to_owned(), value, by_handler, held };
        super::write(&state(), &actor, &write, 1)
    }

    #[test]
    fn a_write_counts_what_it_replaces() {
        let decision = decide(Some(31), Some(70), false, "t").unwrap();
        let [Change::EntryWritten { after, now, .. }] = &decision.changes[..] else { panic!() };
        assert_eq!(*after, Revision(7));
        assert_eq!(*now, Entries { revision: Revision(10), count: 2, bytes: 100 });
        assert!(decision.audit.is_some());
        let decision = decide(Some(31), None, true, "operator").unwrap();
        let [Change::EntryWritten { now, .. }] = &decision.changes[..] else { panic!() };
        assert_eq!(*now, Entries { revision: Revision(10), count: 1, bytes: 29 });
        assert!(decision.audit.is_none(), "a handler's write");
        // What is not there need not be removed.
        let decision = decide(None, None, false, "t").unwrap();
        assert!(decision.changes.is_empty());
        let outcome = Outcome::Entry { revision: Revision(7), existed: false };
        assert_eq!(decision.outcome, outcome);
    }

    #[test]
    fn limits_and_foreign_sites() {
        let limit = |decided: Decided| match decided.unwrap_err() {
            Rejection::Limit { limit, .. } => limit,
            other => panic!("{other}"),
        };
        assert_eq!(limit(decide(None, Some(1), false, "t")), 2);
        assert_eq!(limit(decide(Some(31), Some(71), false, "t")), 100);
        let foreign = decide(Some(31), Some(1), false, "other").unwrap_err();
        assert!(matches!(foreign, Rejection::NotFound { .. }));
        let long = decide(Some(31), Some(2 << 20), false, "t").unwrap_err();
        assert!(matches!(long, Rejection::Invalid(_)));
    }
}
