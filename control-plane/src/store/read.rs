//! What is read straight from the database: documents, purges with their receipts, the audit log,
//! and the feed of those who are behind.

use super::load::{maybe, number, parsed};
use super::write::signed;
use super::{Store, StoreError};
use crate::publish::Entry;
use crate::state::{Change, PreviewRecord, SecretRecord};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::BTreeMap;
use std::sync::Arc;
use verge_config::Revision;
use verge_config::feed::FeedLine;
use verge_config::kv::EntryChanged;
use verge_config::preview::{Preview, Previews};
use verge_config::purge::{Mode, Purge, Selector};
use verge_config::secrets::secrets_of;
use verge_config::site::SiteDocument;

/// The most changes read for one stream at a time.
const FEED_BATCH: i64 = 128;

/// A purge as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PurgeRow {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) purge: Purge,
    pub(crate) created_ms: u64,
    pub(crate) created_by: String,
}

/// What one edge reported of one purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiptRow {
    pub(crate) applied_ms: u64,
    pub(crate) matched: Option<u64>,
}

/// One line of the audit log: the body of `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditRow {
    pub(crate) id: u64,
    pub(crate) at_ms: u64,
    pub(crate) revision: Revision,
    pub(crate) tenant: String,
    pub(crate) actor: String,
    pub(crate) actor_id: String,
    pub(crate) action: String,
    pub(crate) target: String,
}

// === impl Store ===

impl Store {
    /// A version's document, as canonical JSON.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn document(
        &self,
        site: &str,
        version: u64,
    ) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT document FROM versions WHERE site = ? AND version = ?")
            .bind(site)
            .bind(signed(version))
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|row| row.try_get("document")).transpose()?)
    }

    /// A purge by its id.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn purge(&self, id: &str) -> Result<Option<PurgeRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM purges WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(purge_row).transpose()
    }

    /// A tenant's purges before a revision, newest first; of one site when it is named.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn purges(
        &self,
        tenant: &str,
        site: Option<&str>,
        before: u64,
        limit: usize,
    ) -> Result<Vec<PurgeRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM purges WHERE tenant = ?1 AND (?2 IS NULL OR site = ?2) AND revision < ?3
             ORDER BY revision DESC LIMIT ?4",
        )
        .bind(tenant)
        .bind(site)
        .bind(signed(before))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(purge_row).collect()
    }

    /// What each edge reported of a purge, by the edge's id.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn receipts(
        &self,
        revision: Revision,
    ) -> Result<BTreeMap<String, ReceiptRow>, StoreError> {
        let rows = sqlx::query("SELECT edge, applied_ms, matched FROM receipts WHERE revision = ?")
            .bind(signed(revision.0))
            .fetch_all(&self.readers)
            .await?;
        let receipt = |row: &SqliteRow| {
            let receipt = ReceiptRow {
                applied_ms: number(row, "applied_ms")?,
                matched: maybe(row, "matched")?,
            };
            Ok((row.try_get("edge")?, receipt))
        };
        rows.iter().map(receipt).collect()
    }

    /// The audit log before an id, newest first; of one tenant, or of all.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn audit(
        &self,
        tenant: Option<&str>,
        before: u64,
        limit: usize,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE (?1 IS NULL OR tenant = ?1) AND id < ?2
             ORDER BY id DESC LIMIT ?3",
        )
        .bind(tenant)
        .bind(signed(before))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        let entry = |row: &SqliteRow| {
            Ok(AuditRow {
                id: number(row, "id")?,
                at_ms: number(row, "at_ms")?,
                revision: Revision(number(row, "revision")?),
                tenant: row.try_get("tenant")?,
                actor: row.try_get("actor")?,
                actor_id: row.try_get("actor_id")?,
                action: row.try_get("action")?,
                target: row.try_get("target")?,
            })
        };
        rows.iter().map(entry).collect()
    }

    /// The next lines after `since` up to `head`, in order: sites as they are now, and every purge.
    /// A site that was never active is of revision zero and so in nobody's feed; one that was removed
    /// stays in it as removed, even when it has new versions that are not active yet.
    /// Of entries only their sites are told: which of them have changed is not kept.
    /// Empty when there are none.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn feed(
        &self,
        since: Revision,
        head: Revision,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut transaction = self.readers.begin().await?;
        let rows = sqlx::query(
            "SELECT revision, 'site' AS what FROM sites
             WHERE revision > ?1 AND revision <= ?2
             UNION ALL
             SELECT revision, 'purge' AS what FROM purges WHERE revision > ?1 AND revision <= ?2
             UNION ALL
             SELECT previews_revision AS revision, 'previews' AS what FROM sites
             WHERE previews_revision > ?1 AND previews_revision <= ?2
             UNION ALL
             SELECT secrets_revision AS revision, 'secrets' AS what FROM sites
             WHERE secrets_revision > ?1 AND secrets_revision <= ?2
             UNION ALL
             SELECT entries_revision AS revision, 'entries' AS what FROM sites
             WHERE entries_revision > ?1 AND entries_revision <= ?2
             ORDER BY revision LIMIT ?3",
        )
        .bind(signed(since.0))
        .bind(signed(head.0))
        .bind(FEED_BATCH)
        .fetch_all(&mut *transaction)
        .await?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            let revision = Revision(number(&row, "revision")?);
            let what: String = row.try_get("what")?;
            let line = match what.as_str() {
                "site" => site_line(&mut transaction, revision).await?,
                "previews" => previews_line(&mut transaction, revision).await?,
                "secrets" => secrets_line(&mut transaction, revision).await?,
                "entries" => entries_line(&mut transaction, revision).await?,
                _ => purge_line(&mut transaction, revision).await?,
            };
            lines.push(entry(&line)?);
        }
        Ok(lines)
    }

    /// The newest purge that is to be forgotten: beyond the newest `keep`, or from before `oldest_ms`.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn trim_point(
        &self,
        keep: u64,
        oldest_ms: u64,
    ) -> Result<Option<Revision>, StoreError> {
        let row = sqlx::query(
            "SELECT max(coalesce((SELECT max(revision) FROM purges WHERE created_ms < ?), 0),
             coalesce((SELECT revision FROM purges ORDER BY revision DESC LIMIT 1 OFFSET ?), 0))
             AS upto",
        )
        .bind(signed(oldest_ms))
        .bind(signed(keep))
        .fetch_one(&self.readers)
        .await?;
        let upto = number(&row, "upto")?;
        Ok((upto > 0).then_some(Revision(upto)))
    }
}

/// The feed's line of a change that takes a revision.
pub(super) async fn feed_line(
    c: &mut SqliteConnection,
    change: &Change,
) -> Result<Entry, StoreError> {
    let line = match change {
        Change::Purged { site, revision, mode, selectors, .. } => FeedLine::Purge(Purge {
            revision: *revision,
            site: site.clone(),
            selectors: selectors.clone(),
            mode: *mode,
        }),
        Change::SiteRemoved { site, revision } => {
            FeedLine::SiteRemoved { revision: *revision, site: site.clone() }
        }
        Change::SiteActivated { revision, .. } => site_line(c, *revision).await?,
        Change::PreviewsSet { revision, .. } => previews_line(c, *revision).await?,
        Change::SecretPut { site, record: SecretRecord { revision, .. }, .. }
        | Change::SecretRemoved { site, revision, .. }
        | Change::SecretsDropped { site, revision } => {
            FeedLine::Secrets { revision: *revision, site: site.clone() }
        }
        Change::EntryWritten { site, key, after, now, .. } => FeedLine::Entry(EntryChanged {
            revision: now.revision,
            site: site.clone(),
            key: Some(key.clone()),
            after: *after,
        }),
        Change::EntriesDropped { site, now } => any_entry(now.revision, site.clone()),
        _ => return Err(StoreError::Corrupt("a change without a line".to_owned())),
    };
    entry(&line)
}

fn entry(line: &FeedLine) -> Result<Entry, StoreError> {
    let (revision, of) = match line {
        FeedLine::Site { revision, site, .. } | FeedLine::SiteRemoved { revision, site } => {
            (*revision, Some(site.clone()))
        }
        // No site's name holds what these end with.
        FeedLine::Previews(previews) => (previews.revision, Some(format!("{}@", previews.site))),
        FeedLine::Secrets { revision, site } => (*revision, Some(secrets_of(site))),
        FeedLine::Purge(purge) => (purge.revision, None),
        FeedLine::Entry(changed) => (changed.revision, None),
        _ => return Err(StoreError::Corrupt("a line without a revision".to_owned())),
    };
    Ok(Entry { revision, of, line: encode(line)? })
}

async fn site_line(c: &mut SqliteConnection, revision: Revision) -> Result<FeedLine, StoreError> {
    let row = sqlx::query(
        "SELECT name, active, document FROM sites LEFT JOIN versions
         ON versions.site = sites.name AND versions.version = sites.active WHERE revision = ?",
    )
    .bind(signed(revision.0))
    .fetch_one(c)
    .await?;
    let site: String = row.try_get("name")?;
    let Some(version) = maybe(&row, "active")? else {
        return Ok(FeedLine::SiteRemoved { revision, site });
    };
    let document: Arc<SiteDocument> = Arc::new(parsed(&row, "document")?);
    Ok(FeedLine::Site { revision, site, version, document })
}

async fn previews_line(
    c: &mut SqliteConnection,
    revision: Revision,
) -> Result<FeedLine, StoreError> {
    let row = sqlx::query("SELECT name, previews FROM sites WHERE previews_revision = ?")
        .bind(signed(revision.0))
        .fetch_one(&mut *c)
        .await?;
    let site: String = row.try_get("name")?;
    let records: Vec<PreviewRecord> = parsed(&row, "previews")?;
    let mut previews = Vec::with_capacity(records.len());
    for record in records {
        let row = sqlx::query("SELECT document FROM versions WHERE site = ? AND version = ?")
            .bind(&site)
            .bind(signed(record.version))
            .fetch_one(&mut *c)
            .await?;
        previews.push(Preview {
            id: record.id,
            slot: record.slot,
            version: record.version,
            token_sha256: hex::encode(record.secret),
            expires_ms: record.expires_ms,
            document: Arc::new(parsed(&row, "document")?),
        });
    }
    Ok(FeedLine::Previews(Previews { revision, site, previews }))
}

async fn secrets_line(
    c: &mut SqliteConnection,
    revision: Revision,
) -> Result<FeedLine, StoreError> {
    let row = sqlx::query("SELECT name FROM sites WHERE secrets_revision = ?")
        .bind(signed(revision.0))
        .fetch_one(c)
        .await?;
    Ok(FeedLine::Secrets { revision, site: row.try_get("name")? })
}

async fn entries_line(
    c: &mut SqliteConnection,
    revision: Revision,
) -> Result<FeedLine, StoreError> {
    let row = sqlx::query("SELECT name FROM sites WHERE entries_revision = ?")
        .bind(signed(revision.0))
        .fetch_one(c)
        .await?;
    Ok(any_entry(revision, row.try_get("name")?))
}

fn any_entry(revision: Revision, site: String) -> FeedLine {
    FeedLine::Entry(EntryChanged { revision, site, key: None, after: Revision::ZERO })
}

async fn purge_line(c: &mut SqliteConnection, revision: Revision) -> Result<FeedLine, StoreError> {
    let row = sqlx::query("SELECT * FROM purges WHERE revision = ?")
        .bind(signed(revision.0))
        .fetch_one(c)
        .await?;
    Ok(FeedLine::Purge(purge_row(&row)?.purge))
}

fn purge_row(row: &SqliteRow) -> Result<PurgeRow, StoreError> {
    let mode: Mode = parsed(row, "mode")?;
    let selectors: Vec<Selector> = parsed(row, "selectors")?;
    Ok(PurgeRow {
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        purge: Purge {
            revision: Revision(number(row, "revision")?),
            site: row.try_get("site")?,
            selectors,
            mode,
        },
        created_ms: number(row, "created_ms")?,
        created_by: row.try_get("created_by")?,
    })
}

/// One line with its line feed.
pub(crate) fn encode(line: &FeedLine) -> Result<Bytes, StoreError> {
    let mut text =
        serde_json::to_vec(line).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    text.push(b'\n');
    Ok(text.into())
}
