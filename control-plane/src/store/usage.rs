//! What handlers have used: counted with the number of the batch that brought it, in one transaction,
//! and told in sums. It decides no command, so it is no part of the state in memory.

use super::load::number;
use super::write::signed;
use super::{CommitError, Store, StoreError};
use crate::usage::{Asked, Counted, KEPT_HOURS};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};
use std::collections::BTreeMap;
use std::sync::Arc;
use verge_config::usage::{HOUR_MS, Sums, UsageItem, UsageRow};

/// The most rows of one site and hour; what comes beyond is summed up without handler and version.
const MAX_ROWS_OF_AN_HOUR: u64 = 1_000;
/// The most epochs of one edge that are remembered; the one unheard of for longest goes first.
const MAX_EPOCHS: i64 = 1_000;

/// A batch on its way into the sums.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) edge: String,
    pub(crate) epoch: String,
    /// None, where it is only asked how far the epoch is.
    pub(crate) number: Option<u64>,
    pub(crate) counted: Counted,
}

/// The place of a row among those of one question.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowKey {
    pub(crate) period: u64,
    pub(crate) handler: String,
    pub(crate) version: u64,
}

// === impl Store ===

impl Store {
    /// Counts a batch if its number is above the highest of its epoch; gives the highest then. It runs
    /// on a task of its own, as every commit does.
    ///
    /// # Errors
    /// The store fails. Then the batch may be sent again.
    pub(crate) async fn count_usage(
        self: &Arc<Self>,
        batch: Batch,
        now_ms: u64,
    ) -> Result<u64, CommitError> {
        let store = self.clone();
        let task = tokio::spawn(async move { store.count_usage_here(&batch, now_ms).await });
        match task.await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Corrupt(format!("the commit ended: {error}")).into()),
        }
    }

    async fn count_usage_here(&self, batch: &Batch, now_ms: u64) -> Result<u64, CommitError> {
        let mut writer = self.writer.lock().await;
        self.settle(&mut writer).await?;
        let applied = applied(&mut writer.connection, &batch.epoch).await?;
        let Some(number) = batch.number.filter(|number| *number > applied) else {
            return Ok(applied);
        };
        // A transaction that fails leaves a connection that cannot be counted on.
        writer.in_doubt = true;
        match count(&mut writer.connection, batch, number, now_ms).await {
            Ok(()) => {
                writer.in_doubt = false;
                Ok(number)
            }
            Err(error) if error.is_full() => Err(CommitError::Full),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets sums and epochs that are older than what is kept.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn sweep_usage(&self, now_ms: u64) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let oldest = (now_ms / HOUR_MS).saturating_sub(KEPT_HOURS);
        for (statement, value) in [
            ("DELETE FROM usage WHERE hour < ?", oldest),
            ("DELETE FROM usage_outcomes WHERE hour < ?", oldest),
            ("DELETE FROM usage_epochs WHERE seen_ms < ?", oldest * HOUR_MS),
        ] {
            let query = sqlx::query(statement).bind(signed(value));
            query.execute(&mut writer.connection).await?;
        }
        Ok(())
    }

    /// The sums of a site after a row, in the order of period, handler and version.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn usage(
        &self,
        site: &str,
        asked: &Asked,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, UsageRow)>, StoreError> {
        let mut transaction = self.readers.begin().await?;
        // total() adds up as floating-point numbers: exact up to 2^53, and nothing can overflow.
        let rows = sqlx::query(
            "SELECT hour / ?4 AS period, handler, version,
                CAST(total(cpu_us) AS INTEGER) AS cpu_us,
                CAST(total(wall_us) AS INTEGER) AS wall_us,
                CAST(total(memory_kib_ms) AS INTEGER) AS memory_kib_ms,
                CAST(total(fetches) AS INTEGER) AS fetches,
                CAST(total(bytes_in) AS INTEGER) AS bytes_in,
                CAST(total(bytes_out) AS INTEGER) AS bytes_out
             FROM usage WHERE site = ?1 AND hour >= ?2 AND hour < ?3
                AND (?5 IS NULL OR (hour / ?4, handler, version) > (?5, ?6, ?7))
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT ?8",
        )
        .bind(site)
        .bind(signed(asked.from_hour))
        .bind(signed(asked.to_hour))
        .bind(signed(asked.period_hours()))
        .bind(after.map(|key| signed(key.period)))
        .bind(after.map(|key| key.handler.as_str()))
        .bind(after.map(|key| signed(key.version)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        let mut found = BTreeMap::new();
        for row in &rows {
            let key = row_key(row)?;
            found.insert(key.clone(), usage_row(asked, &key, row)?);
        }
        if let (Some((first, _)), Some((last, _))) =
            (found.first_key_value(), found.last_key_value())
        {
            let range = (first.clone(), last.clone());
            outcomes(&mut transaction, site, asked, range, &mut found).await?;
        }
        Ok(found.into_iter().collect())
    }
}

/// The highest number of an epoch that is counted.
async fn applied(c: &mut SqliteConnection, epoch: &str) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT applied FROM usage_epochs WHERE epoch = ?")
        .bind(epoch)
        .fetch_optional(c)
        .await?;
    row.map_or(Ok(0), |row| number(&row, "applied"))
}

/// One transaction with what belongs together: the sums and the number of the batch.
async fn count(
    connection: &mut SqliteConnection,
    batch: &Batch,
    number: u64,
    now_ms: u64,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let c = &mut *transaction;
    for item in &batch.counted.items {
        add(c, item).await?;
    }
    sqlx::query(
        "INSERT INTO usage_epochs (epoch, edge, applied, seen_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (epoch) DO UPDATE SET
            edge = excluded.edge, applied = excluded.applied, seen_ms = excluded.seen_ms",
    )
    .bind(&batch.epoch)
    .bind(&batch.edge)
    .bind(signed(number))
    .bind(signed(now_ms))
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "DELETE FROM usage_epochs WHERE edge = ?1 AND epoch NOT IN
            (SELECT epoch FROM usage_epochs WHERE edge = ?1 ORDER BY seen_ms DESC LIMIT ?2)",
    )
    .bind(&batch.edge)
    .bind(MAX_EPOCHS)
    .execute(c)
    .await?;
    transaction.commit().await?;
    Ok(())
}

async fn add(c: &mut SqliteConnection, item: &UsageItem) -> Result<(), StoreError> {
    let (handler, version) = place(c, item).await?;
    let sums = &item.sums;
    // A sum that is as large as SQLite's integers go stays so.
    sqlx::query(
        "INSERT INTO usage (site, hour, handler, version,
            cpu_us, wall_us, memory_kib_ms, fetches, bytes_in, bytes_out)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (site, hour, handler, version) DO UPDATE SET
            cpu_us = cpu_us + min(excluded.cpu_us, 9223372036854775807 - cpu_us),
            wall_us = wall_us + min(excluded.wall_us, 9223372036854775807 - wall_us),
            memory_kib_ms = memory_kib_ms
                + min(excluded.memory_kib_ms, 9223372036854775807 - memory_kib_ms),
            fetches = fetches + min(excluded.fetches, 9223372036854775807 - fetches),
            bytes_in = bytes_in + min(excluded.bytes_in, 9223372036854775807 - bytes_in),
            bytes_out = bytes_out + min(excluded.bytes_out, 9223372036854775807 - bytes_out)",
    )
    .bind(&item.site)
    .bind(signed(item.hour))
    .bind(handler)
    .bind(signed(version))
    .bind(signed(sums.cpu_us))
    .bind(signed(sums.wall_us))
    .bind(signed(sums.memory_kib_ms))
    .bind(signed(sums.fetches))
    .bind(signed(sums.bytes_in))
    .bind(signed(sums.bytes_out))
    .execute(&mut *c)
    .await?;
    for (outcome, requests) in &sums.outcomes {
        sqlx::query(
            "INSERT INTO usage_outcomes (site, hour, handler, version, outcome, requests)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (site, hour, handler, version, outcome) DO UPDATE SET
                requests = requests + min(excluded.requests, 9223372036854775807 - requests)",
        )
        .bind(&item.site)
        .bind(signed(item.hour))
        .bind(handler)
        .bind(signed(version))
        .bind(outcome)
        .bind(signed(*requests))
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

/// The handler and version under which an item counts: its own, as long as there is room.
async fn place<'i>(
    c: &mut SqliteConnection,
    item: &'i UsageItem,
) -> Result<(&'i str, u64), StoreError> {
    let own = (item.handler.as_str(), item.version);
    let here = sqlx::query(
        "SELECT 1 FROM usage WHERE site = ? AND hour = ? AND handler = ? AND version = ?",
    )
    .bind(&item.site)
    .bind(signed(item.hour))
    .bind(own.0)
    .bind(signed(own.1))
    .fetch_optional(&mut *c)
    .await?;
    if here.is_some() {
        return Ok(own);
    }
    let row = sqlx::query("SELECT count(*) AS rows FROM usage WHERE site = ? AND hour = ?")
        .bind(&item.site)
        .bind(signed(item.hour))
        .fetch_one(c)
        .await?;
    Ok(if number(&row, "rows")? < MAX_ROWS_OF_AN_HOUR { own } else { ("", 0) })
}

fn row_key(row: &SqliteRow) -> Result<RowKey, StoreError> {
    let (period, version) = (number(row, "period")?, number(row, "version")?);
    Ok(RowKey { period, handler: row.try_get("handler")?, version })
}

fn usage_row(asked: &Asked, key: &RowKey, row: &SqliteRow) -> Result<UsageRow, StoreError> {
    let (from_ms, to_ms) = asked.period_ms(key.period);
    let sums = Sums {
        outcomes: BTreeMap::new(),
        cpu_us: number(row, "cpu_us")?,
        wall_us: number(row, "wall_us")?,
        memory_kib_ms: number(row, "memory_kib_ms")?,
        fetches: number(row, "fetches")?,
        bytes_in: number(row, "bytes_in")?,
        bytes_out: number(row, "bytes_out")?,
    };
    let (handler, version) = (key.handler.clone(), key.version);
    Ok(UsageRow { from_ms, to_ms, handler, version, requests: 0, sums })
}

/// Adds the outcomes of the rows in a range.
async fn outcomes(
    c: &mut SqliteConnection,
    site: &str,
    asked: &Asked,
    (first, last): (RowKey, RowKey),
    found: &mut BTreeMap<RowKey, UsageRow>,
) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT hour / ?4 AS period, handler, version, outcome,
            CAST(total(requests) AS INTEGER) AS requests
         FROM usage_outcomes WHERE site = ?1 AND hour >= ?2 AND hour < ?3
            AND (hour / ?4, handler, version) >= (?5, ?6, ?7)
            AND (hour / ?4, handler, version) <= (?8, ?9, ?10)
         GROUP BY 1, 2, 3, 4",
    )
    .bind(site)
    .bind(signed(asked.from_hour))
    .bind(signed(asked.to_hour))
    .bind(signed(asked.period_hours()))
    .bind(signed(first.period))
    .bind(first.handler)
    .bind(signed(first.version))
    .bind(signed(last.period))
    .bind(last.handler)
    .bind(signed(last.version))
    .fetch_all(c)
    .await?;
    for row in &rows {
        let requests = number(row, "requests")?;
        if let Some(usage) = found.get_mut(&row_key(row)?) {
            usage.requests = usage.requests.saturating_add(requests);
            usage.sums.outcomes.insert(row.try_get("outcome")?, requests);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
