//! Writes single changes to the database, within the transaction that the caller holds.

use super::{StoreError, entries, secrets};
use crate::state::{Change, EdgeRecord, TokenRecord};
use sqlx::SqliteConnection;
use verge_config::Revision;
use verge_config::feed::Report;

type Written = Result<(), StoreError>;

/// SQLite's integers are signed.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) async fn write(c: &mut SqliteConnection, change: &Change) -> Written {
    match change {
        Change::VersionAdded { .. }
        | Change::VersionDropped { .. }
        | Change::SiteActivated { .. }
        | Change::SiteRemoved { .. }
        | Change::PreviewsSet { .. } => site(c, change).await,
        Change::SecretPut { .. } | Change::SecretRemoved { .. } | Change::SecretsDropped { .. } => {
            secrets::write(c, change).await
        }
        Change::EntryWritten { .. } | Change::EntriesDropped { .. } => {
            entries::write(c, change).await
        }
        Change::BlobAdded { tenant, digest, bytes, at_ms } => {
            sqlx::query(
                "INSERT INTO blobs (tenant, digest, bytes, created_ms) VALUES (?, ?, ?, ?)",
            )
            .bind(tenant)
            .bind(digest)
            .bind(signed(*bytes))
            .bind(signed(*at_ms))
            .execute(c)
            .await?;
            Ok(())
        }
        Change::Purged { .. } | Change::PurgesTrimmed { .. } => purge(c, change).await,
        Change::TenantCreated { name, at_ms } => {
            sqlx::query("INSERT INTO tenants (name, created_ms) VALUES (?, ?)")
                .bind(name)
                .bind(signed(*at_ms))
                .execute(c)
                .await?;
            Ok(())
        }
        Change::TokenCreated { secret, record } => token(c, secret, record).await,
        Change::TokenRevoked { id } => {
            sqlx::query("DELETE FROM tokens WHERE id = ?").bind(id).execute(c).await?;
            Ok(())
        }
        Change::EdgeEnrolled(record) => edge(c, record).await,
        Change::EdgeRemoved { id, revision } => {
            sqlx::query("UPDATE edges SET removed = ? WHERE id = ?")
                .bind(signed(revision.0))
                .bind(id)
                .execute(c)
                .await?;
            Ok(())
        }
        Change::EdgeReported { edge, crossed, at_ms, report } => {
            reported(c, edge, *crossed, *at_ms, report).await
        }
    }
}

async fn site(c: &mut SqliteConnection, change: &Change) -> Written {
    match change {
        Change::VersionAdded { site, tenant, version, record, document } => {
            sqlx::query(
                "INSERT INTO sites (name, tenant, latest, revision, removed) VALUES (?, ?, ?, 0, 0)
                 ON CONFLICT (name) DO UPDATE SET latest = excluded.latest, removed = 0",
            )
            .bind(site)
            .bind(tenant)
            .bind(signed(*version))
            .execute(&mut *c)
            .await?;
            sqlx::query(
                "INSERT INTO versions
                 (site, version, digest, domains, created_ms, created_by, document)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(site)
            .bind(signed(*version))
            .bind(&record.digest)
            .bind(json(&record.domains)?)
            .bind(signed(record.created_ms))
            .bind(&record.created_by)
            .bind(document.as_ref())
            .execute(c)
            .await?;
        }
        Change::VersionDropped { site, version } => {
            sqlx::query("DELETE FROM versions WHERE site = ? AND version = ?")
                .bind(site)
                .bind(signed(*version))
                .execute(c)
                .await?;
        }
        Change::SiteActivated { site, version, previous, revision } => {
            sqlx::query("UPDATE sites SET active = ?, previous = ?, revision = ? WHERE name = ?")
                .bind(signed(*version))
                .bind(previous.map(signed))
                .bind(signed(revision.0))
                .bind(site)
                .execute(c)
                .await?;
        }
        Change::SiteRemoved { site, revision } => {
            sqlx::query("DELETE FROM versions WHERE site = ?").bind(site).execute(&mut *c).await?;
            sqlx::query(
                "UPDATE sites SET active = NULL, previous = NULL, removed = 1, revision = ?
                 WHERE name = ?",
            )
            .bind(signed(revision.0))
            .bind(site)
            .execute(c)
            .await?;
        }
        Change::PreviewsSet { site, revision, previews } => {
            sqlx::query("UPDATE sites SET previews = ?, previews_revision = ? WHERE name = ?")
                .bind(json(previews)?)
                .bind(signed(revision.0))
                .bind(site)
                .execute(c)
                .await?;
        }
        _ => {}
    }
    Ok(())
}

async fn purge(c: &mut SqliteConnection, change: &Change) -> Written {
    match change {
        Change::Purged { id, tenant, site, revision, mode, selectors, at_ms, by } => {
            sqlx::query(
                "INSERT INTO purges
                 (revision, id, tenant, site, mode, selectors, created_ms, created_by)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(signed(revision.0))
            .bind(id)
            .bind(tenant)
            .bind(site)
            .bind(json(mode)?)
            .bind(json(selectors)?)
            .bind(signed(*at_ms))
            .bind(by)
            .execute(c)
            .await?;
        }
        Change::PurgesTrimmed { upto } => {
            let upto = signed(upto.0);
            for statement in [
                "DELETE FROM purges WHERE revision <= ?",
                "DELETE FROM receipts WHERE revision <= ?",
                "DELETE FROM edges WHERE removed <= ?",
                "UPDATE head SET trimmed = max(trimmed, ?)",
            ] {
                sqlx::query(statement).bind(upto).execute(&mut *c).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

async fn token(c: &mut SqliteConnection, secret: &[u8], record: &TokenRecord) -> Written {
    sqlx::query(
        "INSERT INTO tokens (id, secret, name, tenant, scopes, created_ms, expires_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&record.id)
    .bind(secret)
    .bind(&record.name)
    .bind(&record.tenant)
    .bind(json(&record.scopes)?)
    .bind(signed(record.created_ms))
    .bind(record.expires_ms.map(signed))
    .execute(c)
    .await?;
    Ok(())
}

async fn edge(c: &mut SqliteConnection, record: &EdgeRecord) -> Written {
    sqlx::query(
        "INSERT INTO edges
         (id, name, version, secret, enrolled, removed, applied, crossed, seen_ms, refusals)
         VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET version = excluded.version, secret = excluded.secret",
    )
    .bind(&record.id)
    .bind(&record.name)
    .bind(&record.version)
    .bind(record.secret.as_slice())
    .bind(signed(record.enrolled.0))
    .bind(signed(record.applied.0))
    .bind(signed(record.crossed.0))
    .bind(record.seen_ms.map(signed))
    .bind(json(&record.refusals)?)
    .execute(c)
    .await?;
    Ok(())
}

/// A receipt is written once, when an edge first says that it is past the purge; what it says later
/// (after a replay, with an empty cache) changes nothing.
async fn reported(
    c: &mut SqliteConnection,
    edge: &str,
    crossed: Revision,
    at_ms: u64,
    report: &Report,
) -> Written {
    for applied in &report.purges {
        sqlx::query(
            "INSERT INTO receipts (revision, edge, applied_ms, matched, took_us)
             SELECT purges.revision, edges.id, ?, ?, ? FROM purges, edges
             WHERE purges.revision = ? AND edges.id = ? AND edges.enrolled < purges.revision
             ON CONFLICT (revision, edge) DO UPDATE SET
                matched = coalesce(matched, excluded.matched),
                took_us = coalesce(took_us, excluded.took_us)",
        )
        .bind(signed(at_ms))
        .bind(signed(applied.matched))
        .bind(signed(applied.took_us))
        .bind(signed(applied.revision.0))
        .bind(edge)
        .execute(&mut *c)
        .await?;
    }
    sqlx::query(
        "INSERT INTO receipts (revision, edge, applied_ms)
         SELECT purges.revision, edges.id, ? FROM purges, edges
         WHERE edges.id = ? AND purges.revision > edges.crossed
           AND purges.revision > edges.enrolled AND purges.revision <= ?
         ON CONFLICT (revision, edge) DO NOTHING",
    )
    .bind(signed(at_ms))
    .bind(edge)
    .bind(signed(crossed.0))
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "UPDATE edges SET applied = ?, crossed = ?, seen_ms = ?, refusals = ?,
            version = CASE WHEN ? = '' THEN version ELSE ? END WHERE id = ?",
    )
    .bind(signed(report.applied.0))
    .bind(signed(crossed.0))
    .bind(signed(at_ms))
    .bind(json(&report.refusals)?)
    .bind(&report.version)
    .bind(&report.version)
    .bind(edge)
    .execute(c)
    .await?;
    Ok(())
}
