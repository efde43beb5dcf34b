//! Sites' secrets in the database, sealed: what is written, what is read back into the state (never the
//! sealed values), and what is read for an edge. Cannot open what it keeps.

use super::load::number;
use super::write::signed;
use super::{Store, StoreError};
use crate::state::{Change, Sealed, SecretRecord, State};
use sqlx::{Row, SqliteConnection};
use verge_config::Revision;

/// All secrets of a site at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedSecrets {
    pub(crate) revision: Revision,
    /// By name.
    pub(crate) all: Vec<(String, Sealed)>,
}

// === impl Store ===

impl Store {
    /// A site's secrets, as they are sealed; none for a name that no site ever had.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn secrets(&self, site: &str) -> Result<Option<SealedSecrets>, StoreError> {
        // Both as of one moment.
        let mut transaction = self.readers.begin().await?;
        let row = sqlx::query("SELECT secrets_revision FROM sites WHERE name = ?")
            .bind(site)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let revision = Revision(number(&row, "secrets_revision")?);
        let rows =
            sqlx::query("SELECT name, key, sealed FROM secrets WHERE site = ? ORDER BY name")
                .bind(site)
                .fetch_all(&mut *transaction)
                .await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let sealed = Sealed { key: row.try_get("key")?, bytes: row.try_get("sealed")? };
            all.push((row.try_get("name")?, sealed));
        }
        Ok(Some(SealedSecrets { revision, all }))
    }

    /// The ids of the keys that any secret is sealed with.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn secret_keys(&self) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT key FROM secrets").fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get("key")?)).collect()
    }
}

/// Reads what the state knows of secrets.
pub(super) async fn load(c: &mut SqliteConnection, state: &mut State) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT site, name, revision, set_ms, set_by FROM secrets")
        .fetch_all(&mut *c)
        .await?;
    for row in rows {
        let record = SecretRecord {
            revision: Revision(number(&row, "revision")?),
            set_ms: number(&row, "set_ms")?,
            set_by: row.try_get("set_by")?,
        };
        let site: String = row.try_get("site")?;
        let owner = state.sites.get_mut(&site);
        let owner = owner.ok_or_else(|| StoreError::Corrupt(format!("no site {site:?}")))?;
        owner.secrets.all.insert(row.try_get("name")?, record);
    }
    Ok(())
}

/// Writes one change of secrets, within the transaction that the caller holds.
pub(super) async fn write(c: &mut SqliteConnection, change: &Change) -> Result<(), StoreError> {
    let site = match change {
        Change::SecretPut { site, name, record, sealed } => {
            sqlx::query(
                "INSERT OR REPLACE INTO secrets (site, name, key, sealed, revision, set_ms, set_by)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(site)
            .bind(name)
            .bind(&sealed.key)
            .bind(&sealed.bytes)
            .bind(signed(record.revision.0))
            .bind(signed(record.set_ms))
            .bind(&record.set_by)
            .execute(&mut *c)
            .await?;
            site
        }
        Change::SecretRemoved { site, name, .. } => {
            sqlx::query("DELETE FROM secrets WHERE site = ? AND name = ?")
                .bind(site)
                .bind(name)
                .execute(&mut *c)
                .await?;
            site
        }
        Change::SecretsDropped { site, .. } => {
            sqlx::query("DELETE FROM secrets WHERE site = ?").bind(site).execute(&mut *c).await?;
            site
        }
        _ => return Ok(()),
    };
    let revision = change.revision().unwrap_or_default();
    sqlx::query("UPDATE sites SET secrets_revision = ? WHERE name = ?")
        .bind(signed(revision.0))
        .bind(site)
        .execute(c)
        .await?;
    Ok(())
}
