//! Decides about previews: who may make one, which slot it gets, when it is over. Pure.

use super::decide::{Decided, decided, limited, missing, unchanged};
use super::{
    Actor, Change, Command, Decision, Outcome, PreviewRecord, Rejection, SiteRecord, State,
};
use verge_config::preview::MAX_PREVIEWS;

/// What a command about previews changes.
pub(super) fn decide(state: &State, actor: &Actor, command: &Command, now_ms: u64) -> Decided {
    match command {
        Command::CreatePreview { id, secret, site, version, expires_ms } => {
            let record = PreviewRecord {
                id: id.clone(),
                slot: 0,
                version: *version,
                secret: *secret,
                created_ms: now_ms,
                created_by: actor.name.clone(),
                expires_ms: *expires_ms,
            };
            create(state, actor, site, record)
        }
        Command::RemovePreview { site, id } => remove(state, actor, site, id),
        Command::EndPreviews => Ok(end(state, now_ms)),
        _ => unchanged(Outcome::Done),
    }
}

fn create(state: &State, actor: &Actor, name: &str, record: PreviewRecord) -> Decided {
    let site = state.site(&actor.tenant, name).ok_or_else(|| missing("site", name))?;
    let version = record.version;
    if !site.versions.contains_key(&version) {
        return Err(missing("version", &format!("{name}/{version}")));
    }
    if site.active.is_none() {
        let detail = format!(
            "no version of {name} is active, and a preview is reached on the active one's hosts; \
             activate a version first"
        );
        return Err(Rejection::Conflict(detail));
    }
    let mut previews = living(site, record.created_ms);
    limited("previews of this site", previews.len(), MAX_PREVIEWS)?;
    let taken = |slot: &u8| previews.iter().any(|preview| preview.slot == *slot);
    let slot = (0..=u8::MAX).find(|slot| !taken(slot)).unwrap_or_default();
    let (id, revision) = (record.id.clone(), state.revision.next());
    previews.push(PreviewRecord { slot, ..record });
    let target = format!("{name}/{version}/{id}");
    let change = Change::PreviewsSet { site: name.to_owned(), revision, previews };
    decided(vec![change], Outcome::Preview { id, revision }, "preview.create", target)
}

fn remove(state: &State, actor: &Actor, name: &str, id: &str) -> Decided {
    let site = state.site(&actor.tenant, name).ok_or_else(|| missing("site", name))?;
    let mut previews = site.previews.all.clone();
    previews.retain(|preview| preview.id != id);
    if previews.len() == site.previews.all.len() {
        return Err(missing("preview", &format!("{name}/{id}")));
    }
    let revision = state.revision.next();
    let change = Change::PreviewsSet { site: name.to_owned(), revision, previews };
    decided(vec![change], Outcome::Done, "preview.remove", format!("{name}/{id}"))
}

/// Edges look at the time themselves; this makes them forget.
fn end(state: &State, now_ms: u64) -> Decision {
    let mut revision = state.revision;
    let over = state
        .sites
        .iter()
        .filter(|(_, site)| site.previews.all.iter().any(|preview| preview.expires_ms <= now_ms));
    let changes = over.map(|(name, site)| {
        revision = revision.next();
        Change::PreviewsSet { site: name.clone(), revision, previews: living(site, now_ms) }
    });
    Decision { changes: changes.collect(), outcome: Outcome::Done, audit: None }
}

/// The previews that have not ended.
fn living(site: &SiteRecord, now_ms: u64) -> Vec<PreviewRecord> {
    site.previews.all.iter().filter(|preview| preview.expires_ms > now_ms).cloned().collect()
}
