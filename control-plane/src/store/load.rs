//! Reads the whole state back from the database, when the store is opened or in doubt.

use super::{StoreError, secrets};
use crate::state::{
    EdgeRecord, Entries, PreviewSet, SecretHash, SecretSet, SiteRecord, State, TenantRecord,
    TokenRecord, VersionRecord,
};
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use verge_config::Revision;

type Loaded<T> = Result<T, StoreError>;

pub(super) async fn load(c: &mut SqliteConnection) -> Loaded<State> {
    let mut state = State::default();
    let head =
        sqlx::query("SELECT revision, trimmed, history FROM head").fetch_one(&mut *c).await?;
    state.revision = Revision(number(&head, "revision")?);
    state.trimmed = Revision(number(&head, "trimmed")?);
    state.history = head.try_get("history")?;
    for row in sqlx::query("SELECT name, created_ms FROM tenants").fetch_all(&mut *c).await? {
        let record = TenantRecord { created_ms: number(&row, "created_ms")? };
        state.tenants.insert(row.try_get("name")?, record);
    }
    for row in sqlx::query("SELECT * FROM tokens").fetch_all(&mut *c).await? {
        let record = TokenRecord {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            tenant: row.try_get("tenant")?,
            scopes: parsed(&row, "scopes")?,
            created_ms: number(&row, "created_ms")?,
            expires_ms: maybe(&row, "expires_ms")?,
        };
        state.tokens.insert(secret(&row)?, record);
    }
    sites(c, &mut state).await?;
    secrets::load(c, &mut state).await?;
    for row in sqlx::query("SELECT tenant, digest, bytes FROM blobs").fetch_all(&mut *c).await? {
        let blobs = state.blobs.entry(row.try_get("tenant")?).or_default();
        blobs.insert(row.try_get("digest")?, number(&row, "bytes")?);
    }
    for row in sqlx::query("SELECT * FROM edges").fetch_all(&mut *c).await? {
        let edge = edge(&row)?;
        if edge.removed.is_none() {
            state.edge_secrets.insert(edge.secret, edge.id.clone());
        }
        state.edges.insert(edge.id.clone(), edge);
    }
    let ahead = "SELECT receipts.edge, receipts.revision FROM edges, receipts
                 WHERE receipts.edge = edges.id AND receipts.revision > edges.crossed
                 ORDER BY receipts.revision";
    for row in sqlx::query(ahead).fetch_all(&mut *c).await? {
        let edge: String = row.try_get("edge")?;
        if let Some(edge) = state.edges.get_mut(&edge) {
            edge.ahead.insert(Revision(number(&row, "revision")?));
            edge.bound_ahead();
        }
    }
    Ok(state)
}

async fn sites(c: &mut SqliteConnection, state: &mut State) -> Loaded<()> {
    for row in sqlx::query("SELECT * FROM sites").fetch_all(&mut *c).await? {
        let record = SiteRecord {
            tenant: row.try_get("tenant")?,
            versions: BTreeMap::new(),
            latest: number(&row, "latest")?,
            active: maybe(&row, "active")?,
            previous: maybe(&row, "previous")?,
            revision: Revision(number(&row, "revision")?),
            removed: number(&row, "removed")? != 0,
            previews: PreviewSet {
                revision: Revision(number(&row, "previews_revision")?),
                all: parsed(&row, "previews")?,
            },
            secrets: SecretSet {
                revision: Revision(number(&row, "secrets_revision")?),
                all: BTreeMap::new(),
            },
            entries: Entries {
                revision: Revision(number(&row, "entries_revision")?),
                count: number(&row, "entries")?,
                bytes: number(&row, "entry_bytes")?,
            },
        };
        state.sites.insert(row.try_get("name")?, record);
    }
    let versions =
        sqlx::query("SELECT site, version, digest, domains, created_ms, created_by FROM versions")
            .fetch_all(&mut *c)
            .await?;
    for row in versions {
        let record = VersionRecord {
            digest: row.try_get("digest")?,
            domains: parsed(&row, "domains")?,
            created_ms: number(&row, "created_ms")?,
            created_by: row.try_get("created_by")?,
        };
        let site: String = row.try_get("site")?;
        let owner = state.sites.get_mut(&site);
        let owner = owner.ok_or_else(|| StoreError::Corrupt(format!("no site {site:?}")))?;
        owner.versions.insert(number(&row, "version")?, record);
    }
    let active = state.sites.iter().flat_map(|(name, site)| {
        site.domains().iter().map(|domain| (domain.clone(), name.clone()))
    });
    state.domains = active.collect();
    Ok(())
}

fn edge(row: &SqliteRow) -> Loaded<EdgeRecord> {
    Ok(EdgeRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        secret: secret(row)?,
        enrolled: Revision(number(row, "enrolled")?),
        removed: maybe(row, "removed")?.map(Revision),
        applied: Revision(number(row, "applied")?),
        crossed: Revision(number(row, "crossed")?),
        ahead: BTreeSet::new(),
        seen_ms: maybe(row, "seen_ms")?,
        refusals: parsed(row, "refusals")?,
    })
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Loaded<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("{column} is {value}")))
}

pub(super) fn maybe(row: &SqliteRow, column: &str) -> Loaded<Option<u64>> {
    let value: Option<i64> = row.try_get(column)?;
    let wrong = |_| StoreError::Corrupt(format!("{column} is negative"));
    value.map(u64::try_from).transpose().map_err(wrong)
}

pub(super) fn parsed<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Loaded<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| StoreError::Corrupt(format!("{column}: {error}")))
}

fn secret(row: &SqliteRow) -> Loaded<SecretHash> {
    let bytes: Vec<u8> = row.try_get("secret")?;
    bytes.try_into().map_err(|_| StoreError::Corrupt("a hash is not of 32 bytes".to_owned()))
}
