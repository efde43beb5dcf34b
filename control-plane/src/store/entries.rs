//! The entries of sites' key-value stores: written within a commit's transaction, read from the database
//! alone. No value stays in memory.

use super::load::number;
use super::write::signed;
use super::{Store, StoreError};
use crate::state::{Change, Command, Entries};
use bytes::Bytes;
use sqlx::{Row, SqliteConnection};
use verge_config::Revision;
use verge_config::kv::EntryInfo;

/// An entry with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: Revision,
    pub(crate) value: Bytes,
}

// === impl Store ===

impl Store {
    /// An entry of a site.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn entry(&self, site: &str, key: &str) -> Result<Option<Entry>, StoreError> {
        let row = sqlx::query("SELECT revision, value FROM entries WHERE site = ? AND key = ?")
            .bind(site)
            .bind(key)
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let value: Vec<u8> = row.try_get("value")?;
        let revision = Revision(number(&row, "revision")?);
        Ok(Some(Entry { revision, value: value.into() }))
    }

    /// A site's entries without their values, in the order of their keys: those that begin with `prefix`
    /// and come after the key `after`.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn entries(
        &self,
        site: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<EntryInfo>, StoreError> {
        let rows = sqlx::query(
            "SELECT key, bytes, revision, updated_ms FROM entries
             WHERE site = ?1 AND key >= ?2 AND key > ?3 ORDER BY key LIMIT ?4",
        )
        .bind(site)
        .bind(prefix)
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let key: String = row.try_get("key")?;
            // Keys with one beginning stand together, and none before them is read.
            if !key.starts_with(prefix) {
                break;
            }
            found.push(EntryInfo {
                bytes: number(row, "bytes")?.saturating_sub(key.len() as u64),
                revision: Revision(number(row, "revision")?),
                updated_ms: number(row, "updated_ms")?,
                key,
            });
        }
        Ok(found)
    }

    /// A site's keys in their order, without the first `skip`.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn keys(
        &self,
        site: &str,
        skip: u64,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let rows =
            sqlx::query("SELECT key FROM entries WHERE site = ? ORDER BY key LIMIT ? OFFSET ?")
                .bind(site)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .bind(signed(skip))
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(|row| Ok(row.try_get("key")?)).collect()
    }
}

/// Fills in what a decision about an entry needs to know of the one that is there.
pub(super) async fn look_up(
    c: &mut SqliteConnection,
    command: &mut Command,
) -> Result<(), StoreError> {
    let Command::WriteEntry(write) = command else { return Ok(()) };
    let row = sqlx::query("SELECT bytes FROM entries WHERE site = ? AND key = ?")
        .bind(&write.site)
        .bind(&write.key)
        .fetch_optional(c)
        .await?;
    write.held = row.map(|row| number(&row, "bytes")).transpose()?;
    Ok(())
}

/// Writes a change of entries.
pub(super) async fn write(c: &mut SqliteConnection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::EntryWritten { site, key, value: Some(value), at_ms, now, .. } => {
            sqlx::query(
                "INSERT OR REPLACE INTO entries (site, key, revision, updated_ms, bytes, value)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(site)
            .bind(key)
            .bind(signed(now.revision.0))
            .bind(signed(*at_ms))
            .bind(signed(verge_config::kv::weight(key, value)))
            .bind(value.as_ref())
            .execute(&mut *c)
            .await?;
            count(c, site, *now).await
        }
        Change::EntryWritten { site, key, value: None, now, .. } => {
            sqlx::query("DELETE FROM entries WHERE site = ? AND key = ?")
                .bind(site)
                .bind(key)
                .execute(&mut *c)
                .await?;
            count(c, site, *now).await
        }
        Change::EntriesDropped { site, now } => {
            sqlx::query("DELETE FROM entries WHERE site = ?").bind(site).execute(&mut *c).await?;
            count(c, site, *now).await
        }
        _ => Ok(()),
    }
}

async fn count(c: &mut SqliteConnection, site: &str, now: Entries) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sites SET entries = ?, entry_bytes = ?, entries_revision = ? WHERE name = ?",
    )
    .bind(signed(now.count))
    .bind(signed(now.bytes))
    .bind(signed(now.revision.0))
    .bind(site)
    .execute(c)
    .await?;
    Ok(())
}
