//! Decides commands: `(&State, Command) -> Result<Decision, Rejection>`. Pure; changes nothing.

use super::domains::clash;
use super::{Actor, Change, Command, Decision, EdgeRecord, OPERATOR, Outcome, Rejection, State};
use super::{SecretHash, SiteRecord, TokenRecord, Upload, VersionRecord};
use super::{entries, previews, secrets};
use verge_config::api::{Activated, Enrol, Scope};
use verge_config::feed::Report;
use verge_config::purge::{Mode, PurgeRequest, Selector};
use verge_config::{Faults, Revision};

/// The most purges that one report may name; an edge sends the rest with its next one.
const MAX_REPORTED_PURGES: usize = 10_000;
/// The most refusals kept of one edge.
const MAX_REFUSALS: usize = 1_000;
/// The longest name of a token, a tenant or an edge.
const MAX_NAME: usize = 63;

pub(super) type Decided = Result<Decision, Rejection>;

/// What `command`, given by `actor` at `now_ms`, changes.
///
/// # Errors
/// Why it is refused.
pub(crate) fn decide(state: &State, actor: &Actor, command: &Command, now_ms: u64) -> Decided {
    match command {
        Command::Upload(upload) => self::upload(state, actor, upload, now_ms),
        Command::Activate { site, version, expected } => {
            activate(state, actor, site, *version, *expected)
        }
        Command::Rollback { site, expected } => rollback(state, actor, site, *expected),
        Command::RemoveSite { site, purge_id, expected } => {
            remove_site(state, actor, site, purge_id, *expected, now_ms)
        }
        Command::CreatePreview { .. } | Command::RemovePreview { .. } | Command::EndPreviews => {
            previews::decide(state, actor, command, now_ms)
        }
        Command::PutSecret { site, name, sealed } => {
            secrets::put(state, actor, site, name, sealed, now_ms)
        }
        Command::RemoveSecret { site, name } => secrets::remove(state, actor, site, name),
        Command::WriteEntry(write) => entries::write(state, actor, write, now_ms),
        Command::AddBlob { digest, bytes } => add_blob(state, actor, digest, *bytes, now_ms),
        Command::Purge { id, site, request } => purge(state, actor, id, site, request, now_ms),
        Command::CreateTenant { name } => create_tenant(state, name, now_ms),
        Command::CreateToken { id, secret, name, tenant, scopes, expires_ms } => {
            let record = TokenRecord {
                id: id.clone(),
                name: name.clone(),
                tenant: tenant.clone(),
                scopes: scopes.clone(),
                created_ms: now_ms,
                expires_ms: *expires_ms,
            };
            create_token(state, actor, *secret, record)
        }
        Command::RevokeToken { id } => revoke_token(state, actor, id, now_ms),
        Command::Enrol { id, secret, enrol } => self::enrol(state, id, *secret, enrol, now_ms),
        Command::RemoveEdge { name } => remove_edge(state, name),
        Command::Report { edge, report } => self::report(state, edge, report, now_ms),
        Command::Trim { upto } => Ok(Decision {
            changes: vec![Change::PurgesTrimmed { upto: *upto }],
            outcome: Outcome::Done,
            audit: None,
        }),
    }
}

pub(super) fn decided(
    changes: Vec<Change>,
    outcome: Outcome,
    action: &'static str,
    target: String,
) -> Decided {
    Ok(Decision { changes, outcome, audit: Some((action, target)) })
}

/// Nothing changes and nothing is logged: the state already is as asked.
pub(super) fn unchanged(outcome: Outcome) -> Decided {
    Ok(Decision { changes: Vec::new(), outcome, audit: None })
}

pub(super) fn missing(what: &'static str, name: &str) -> Rejection {
    Rejection::NotFound { what, name: name.to_owned() }
}

pub(super) fn limited(what: &'static str, count: usize, limit: usize) -> Result<(), Rejection> {
    let limit_reached = Rejection::Limit { what, limit: limit as u64 };
    if count >= limit { Err(limit_reached) } else { Ok(()) }
}

fn check_name(path: &str, name: &str) -> Result<(), Rejection> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        let message = format!("must be 1 to {MAX_NAME} of a-z, 0-9, \"-\", \"_\" and \".\"");
        return Err(Rejection::Invalid(Faults::one(path, message)));
    }
    Ok(())
}

fn upload(state: &State, actor: &Actor, upload: &Upload, now_ms: u64) -> Decided {
    let mut faults = Faults::default();
    for (path, digest) in &upload.components {
        if state.owns_blob(&actor.tenant, digest).is_none() {
            faults.add(path, format!("no blob sha256:{digest}; upload it first"));
        }
    }
    faults.or(()).map_err(Rejection::Invalid)?;
    let existing = match state.sites.get(&upload.site) {
        Some(site) if site.tenant != actor.tenant => return Err(missing("site", &upload.site)),
        other => other,
    };
    let latest = existing.map_or(0, |site| site.latest);
    let outcome =
        |version, created| Outcome::Version { site: upload.site.clone(), version, created };
    if let Some(site) = existing
        && site.versions.get(&latest).is_some_and(|v| v.digest == upload.digest)
    {
        return unchanged(outcome(latest, false));
    }
    if existing.is_none_or(|site| site.removed) {
        let names = state.sites.values().filter(|s| s.tenant == actor.tenant);
        let there = names.clone().filter(|s| !s.removed).count();
        limited("sites of this tenant", there, state.quotas.sites_per_tenant)?;
        if existing.is_none() {
            limited("site names of this tenant", names.count(), state.quotas.names_per_tenant)?;
        }
    }
    let mut changes: Vec<Change> = existing.map_or_else(Vec::new, |site| room(state, upload, site));
    let version = latest.saturating_add(1);
    changes.push(Change::VersionAdded {
        site: upload.site.clone(),
        tenant: actor.tenant.clone(),
        version,
        record: VersionRecord {
            digest: upload.digest.clone(),
            domains: upload.domains.clone(),
            created_ms: now_ms,
            created_by: actor.name.clone(),
        },
        document: upload.document.clone(),
    });
    decided(changes, outcome(version, true), "version.upload", format!("{}/{version}", upload.site))
}

/// Drops the oldest version that is not in use, when the site has no room for another.
fn room(state: &State, upload: &Upload, site: &SiteRecord) -> Vec<Change> {
    if site.versions.len() < state.quotas.versions_per_site {
        return Vec::new();
    }
    let pointed = [site.active, site.previous];
    let in_use = |version: u64| {
        let previewed = site.previews.all.iter().any(|preview| preview.version == version);
        previewed || pointed.contains(&Some(version))
    };
    let oldest = site.versions.keys().find(|version| !in_use(**version));
    let drop =
        |version: &u64| Change::VersionDropped { site: upload.site.clone(), version: *version };
    oldest.map(drop).into_iter().collect()
}

fn expect(site: &SiteRecord, expected: Option<Revision>) -> Result<(), Rejection> {
    match expected {
        Some(revision) if revision != site.revision => {
            Err(Rejection::Precondition { actual: site.revision })
        }
        _ => Ok(()),
    }
}

fn activate(
    state: &State,
    actor: &Actor,
    name: &str,
    version: u64,
    expected: Option<Revision>,
) -> Decided {
    let site = state.site(&actor.tenant, name).ok_or_else(|| missing("site", name))?;
    expect(site, expected)?;
    let record = site
        .versions
        .get(&version)
        .ok_or_else(|| missing("version", &format!("{name}/{version}")))?;
    let answer = |previous, revision| {
        Outcome::Activated(Activated { site: name.to_owned(), version, previous, revision })
    };
    if site.active == Some(version) {
        return unchanged(answer(site.previous, site.revision));
    }
    if let Some(domain) = clash(state, &actor.tenant, name, &record.domains) {
        let detail = format!("the domain {domain} is in use by another site");
        return Err(Rejection::Conflict(detail));
    }
    let revision = state.revision.next();
    let previous = site.active;
    let change = Change::SiteActivated { site: name.to_owned(), version, previous, revision };
    let target = format!("{name}/{version}");
    decided(vec![change], answer(previous, revision), "site.activate", target)
}

fn rollback(state: &State, actor: &Actor, name: &str, expected: Option<Revision>) -> Decided {
    let site = state.site(&actor.tenant, name).ok_or_else(|| missing("site", name))?;
    expect(site, expected)?;
    let Some(version) = site.previous else {
        let detail =
            format!("no version of {name} was active before; there is nothing to roll back to");
        return Err(Rejection::Conflict(detail));
    };
    let mut decision = activate(state, actor, name, version, None)?;
    decision.audit = Some(("site.rollback", format!("{name}/{version}")));
    Ok(decision)
}

/// The objects go with the site: should its owner make it anew, nothing old comes back.
fn remove_site(
    state: &State,
    actor: &Actor,
    name: &str,
    purge_id: &str,
    expected: Option<Revision>,
    now_ms: u64,
) -> Decided {
    let site = state.site(&actor.tenant, name).ok_or_else(|| missing("site", name))?;
    expect(site, expected)?;
    let purged = state.revision.next();
    let revision = purged.next();
    let mut changes = vec![
        Change::Purged {
            id: purge_id.to_owned(),
            tenant: actor.tenant.clone(),
            site: name.to_owned(),
            revision: purged,
            mode: Mode::Hard,
            selectors: vec![Selector::Everything(true)],
            at_ms: now_ms,
            by: actor.name.clone(),
        },
        Change::SiteRemoved { site: name.to_owned(), revision },
    ];
    let mut last = revision;
    if !site.previews.all.is_empty() {
        last = last.next();
        let (site, previews) = (name.to_owned(), Vec::new());
        changes.push(Change::PreviewsSet { site, revision: last, previews });
    }
    if !site.secrets.all.is_empty() {
        last = last.next();
        changes.push(Change::SecretsDropped { site: name.to_owned(), revision: last });
    }
    changes.extend(entries::dropped(name, site, last.next()));
    let answer = Activated { site: name.to_owned(), version: 0, previous: site.active, revision };
    decided(changes, Outcome::Activated(answer), "site.remove", name.to_owned())
}

fn add_blob(state: &State, actor: &Actor, digest: &str, bytes: u64, now_ms: u64) -> Decided {
    if state.owns_blob(&actor.tenant, digest).is_some() {
        return unchanged(Outcome::Blob { created: false });
    }
    let owned = state.blobs.get(&actor.tenant);
    let count = owned.map_or(0, |blobs| blobs.len());
    limited("components of this tenant", count, state.quotas.blobs_per_tenant)?;
    let stored: u64 = owned.map_or(0, |blobs| blobs.values().sum());
    let limit = state.quotas.blob_bytes_per_tenant;
    if stored.saturating_add(bytes) > limit {
        return Err(Rejection::Limit { what: "bytes of this tenant's components", limit });
    }
    let change = Change::BlobAdded {
        tenant: actor.tenant.clone(),
        digest: digest.to_owned(),
        bytes,
        at_ms: now_ms,
    };
    decided(vec![change], Outcome::Blob { created: true }, "blob.upload", digest.to_owned())
}

fn purge(
    state: &State,
    actor: &Actor,
    id: &str,
    site: &str,
    request: &PurgeRequest,
    now_ms: u64,
) -> Decided {
    request.validate().map_err(Rejection::Invalid)?;
    state.site(&actor.tenant, site).ok_or_else(|| missing("site", site))?;
    let change = Change::Purged {
        id: id.to_owned(),
        tenant: actor.tenant.clone(),
        site: site.to_owned(),
        revision: state.revision.next(),
        mode: request.mode,
        selectors: request.selectors.clone(),
        at_ms: now_ms,
        by: actor.name.clone(),
    };
    let target = format!("{site}/{id}");
    decided(vec![change], Outcome::Purge { id: id.to_owned() }, "purge", target)
}

fn create_tenant(state: &State, name: &str, now_ms: u64) -> Decided {
    check_name("name", name)?;
    if state.tenants.contains_key(name) {
        return Err(Rejection::Conflict(format!("there is a tenant {name:?} already")));
    }
    limited("tenants", state.tenants.len(), state.quotas.tenants)?;
    let change = Change::TenantCreated { name: name.to_owned(), at_ms: now_ms };
    decided(vec![change], Outcome::Tenant { name: name.to_owned() }, "tenant.create", name.into())
}

fn create_token(state: &State, actor: &Actor, secret: SecretHash, record: TokenRecord) -> Decided {
    let mut faults = Faults::default();
    if record.name.is_empty() || record.name.len() > 200 {
        faults.add("name", "must be 1 to 200 bytes");
    }
    if record.name.chars().any(char::is_control) {
        faults.add("name", "must not contain control characters");
    }
    if record.scopes.is_empty() {
        faults.add("scopes", "at least one is needed: admin, deploy, purge, read or join");
    }
    if record.expires_ms.is_some_and(|end| end <= record.created_ms) {
        faults.add("expires_in_seconds", "must be at least 1");
    }
    faults.or(()).map_err(Rejection::Invalid)?;
    if actor.tenant != OPERATOR {
        if record.tenant != actor.tenant {
            return Err(missing("tenant", &record.tenant));
        }
        // An edge is told of every tenant's sites, so who may enrol one is the operator's to say.
        if record.scopes.contains(&Scope::Join) {
            let detail = "only the operator may make tokens with the scope \"join\"";
            return Err(Rejection::Forbidden(detail.to_owned()));
        }
    }
    if !state.tenants.contains_key(&record.tenant) {
        return Err(missing("tenant", &record.tenant));
    }
    let owned = state
        .tokens
        .values()
        .filter(|t| t.tenant == record.tenant && t.expires_ms.is_none_or(|e| e > record.created_ms))
        .count();
    limited("tokens of this tenant", owned, state.quotas.tokens_per_tenant)?;
    let id = record.id.clone();
    // Expired tokens are dead already; they make room here, so that no timer is needed for it.
    let expired = state.tokens.values().filter(|t| {
        t.tenant == record.tenant && t.expires_ms.is_some_and(|end| end <= record.created_ms)
    });
    let mut changes: Vec<Change> =
        expired.map(|t| Change::TokenRevoked { id: t.id.clone() }).collect();
    changes.push(Change::TokenCreated { secret, record });
    decided(changes, Outcome::Token { id: id.clone() }, "token.create", id)
}

fn revoke_token(state: &State, actor: &Actor, id: &str, now_ms: u64) -> Decided {
    let (_, token) = state
        .token_by_id(id)
        .filter(|(_, token)| actor.tenant == OPERATOR || token.tenant == actor.tenant)
        .ok_or_else(|| missing("token", id))?;
    let rules = |t: &TokenRecord| {
        t.tenant == OPERATOR
            && t.scopes.contains(&Scope::Admin)
            && t.expires_ms.is_none_or(|end| end > now_ms)
    };
    if rules(token) && state.tokens.values().filter(|t| rules(t)).count() == 1 {
        let detail = "this is the operator's last admin token; make another one first";
        return Err(Rejection::Conflict(detail.to_owned()));
    }
    let change = Change::TokenRevoked { id: id.to_owned() };
    decided(vec![change], Outcome::Done, "token.revoke", id.to_owned())
}

fn enrol(state: &State, id: &str, secret: SecretHash, enrol: &Enrol, now_ms: u64) -> Decided {
    check_name("name", &enrol.name)?;
    let record = match state.edge_named(&enrol.name) {
        // It stays the edge that earlier purges wait for; only its credential is new.
        Some(edge) => EdgeRecord { secret, version: enrol.version.clone(), ..edge.clone() },
        None => {
            let count = state.edges.values().filter(|edge| edge.removed.is_none()).count();
            limited("edges", count, state.quotas.edges)?;
            EdgeRecord {
                id: id.to_owned(),
                name: enrol.name.clone(),
                version: enrol.version.clone(),
                secret,
                enrolled: state.revision,
                removed: None,
                applied: Revision::ZERO,
                crossed: Revision::ZERO,
                ahead: Default::default(),
                seen_ms: Some(now_ms),
                refusals: Vec::new(),
            }
        }
    };
    let outcome = Outcome::Edge { id: record.id.clone() };
    decided(vec![Change::EdgeEnrolled(record)], outcome, "edge.enrol", enrol.name.clone())
}

fn remove_edge(state: &State, name: &str) -> Decided {
    let edge = state.edge_named(name).ok_or_else(|| missing("edge", name))?;
    let change = Change::EdgeRemoved { id: edge.id.clone(), revision: state.revision };
    decided(vec![change], Outcome::Done, "edge.remove", name.to_owned())
}

fn report(state: &State, edge: &str, report: &Report, now_ms: u64) -> Decided {
    let edge = state.edges.get(edge).ok_or_else(|| missing("edge", edge))?;
    if report.applied > state.revision {
        let (applied, head) = (report.applied, state.revision);
        return Err(Rejection::AheadOfHistory { applied, head });
    }
    if report.purges.len() > MAX_REPORTED_PURGES || report.refusals.len() > MAX_REFUSALS {
        let message = format!(
            "at most {MAX_REPORTED_PURGES} purges and {MAX_REFUSALS} refusals in one report"
        );
        return Err(Rejection::Invalid(Faults::one("", message)));
    }
    let same_version = report.version.is_empty() || report.version == edge.version;
    if report.applied == edge.applied
        && report.purges.is_empty()
        && report.refusals == edge.refusals
        && same_version
    {
        return unchanged(Outcome::Done);
    }
    let change = Change::EdgeReported {
        edge: edge.id.clone(),
        crossed: edge.crossed.max(report.applied),
        at_ms: now_ms,
        report: report.clone(),
    };
    Ok(Decision { changes: vec![change], outcome: Outcome::Done, audit: None })
}
