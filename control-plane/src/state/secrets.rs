//! Decides about secrets: who may set one, how many there may be. Pure; values come in sealed, and nothing
//! here can open them.

use super::decide::{Decided, decided, limited, missing};
use super::{Actor, Change, Outcome, Sealed, SecretRecord, SecretSet, State};
use verge_config::secrets::MAX_SECRETS;

/// Sets a secret. The same value again is a change like any other: what is sealed cannot be compared.
pub(super) fn put(
    state: &State,
    actor: &Actor,
    site: &str,
    name: &str,
    sealed: &Sealed,
    now_ms: u64,
) -> Decided {
    let secrets = &state.site(&actor.tenant, site).ok_or_else(|| missing("site", site))?.secrets;
    let created = !secrets.all.contains_key(name);
    if created {
        limited("secrets of this site", secrets.all.len(), MAX_SECRETS)?;
    }
    let revision = state.revision.next();
    let change = Change::SecretPut {
        site: site.to_owned(),
        name: name.to_owned(),
        record: SecretRecord { revision, set_ms: now_ms, set_by: actor.name.clone() },
        sealed: sealed.clone(),
    };
    let outcome = Outcome::Secret { created, revision };
    decided(vec![change], outcome, "secret.put", format!("{site}/{name}"))
}

pub(super) fn remove(state: &State, actor: &Actor, site: &str, name: &str) -> Decided {
    let secrets = &state.site(&actor.tenant, site).ok_or_else(|| missing("site", site))?.secrets;
    if !secrets.all.contains_key(name) {
        return Err(missing("secret", &format!("{site}/{name}")));
    }
    let revision = state.revision.next();
    let change = Change::SecretRemoved { site: site.to_owned(), name: name.to_owned(), revision };
    let outcome = Outcome::Secret { created: false, revision };
    decided(vec![change], outcome, "secret.remove", format!("{site}/{name}"))
}

// === impl SecretSet ===

impl SecretSet {
    /// Makes one committed change to a site's secrets true.
    pub(super) fn apply(&mut self, change: &Change) {
        self.revision = change.revision().unwrap_or(self.revision);
        match change {
            Change::SecretPut { name, record, .. } => {
                self.all.insert(name.clone(), record.clone());
            }
            Change::SecretRemoved { name, .. } => {
                self.all.remove(name);
            }
            _ => self.all.clear(),
        }
    }
}
