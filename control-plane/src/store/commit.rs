//! Commits a command: decide, write under the next revision, make it durable, and only then make it
//! true in memory, publish it and answer.

use super::entries::look_up;
use super::load::{load, parsed};
use super::open::connect;
use super::read::feed_line;
use super::write::{json, signed, write};
use super::{CommitError, Store, StoreError, Writer};
use crate::publish::Entry;
use crate::state::{Actor, Command, Decision, Outcome, SecretHash, decide};
use sqlx::{Connection, Row, SqliteConnection};
use std::sync::Arc;

/// How long an idempotency key is remembered: 24 hours.
const KEY_LIFETIME_MS: u64 = 24 * 3_600 * 1_000;
/// The most keys remembered, and the most rows of the audit log; the oldest go first. Both are held
/// by a sweep from time to time, and so may be passed in between.
const MAX_KEYS: i64 = 100_000;
const MAX_AUDIT_ROWS: i64 = 1_000_000;
/// A caller's idempotency key and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idempotency {
    pub(crate) key: String,
    /// SHA-256 of method, path, query and body.
    pub(crate) fingerprint: SecretHash,
}

/// A command that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) outcome: Outcome,
    /// The key was seen before, and this is its outcome of then.
    pub(crate) replayed: bool,
}

// === impl Store ===

impl Store {
    /// Commits `command`. It runs on a task of its own: a caller that goes away in the middle cannot
    /// part what is durable from what is in memory.
    ///
    /// # Errors
    /// The command is refused, its key stands for another request, or the store fails; in all three
    /// nothing has changed, save that a store failure during the commit itself may leave it in doubt.
    pub(crate) async fn commit(
        self: &Arc<Self>,
        actor: Actor,
        key: Option<Idempotency>,
        command: Command,
        now_ms: u64,
    ) -> Result<Committed, CommitError> {
        let store = self.clone();
        let task =
            tokio::spawn(
                async move { store.commit_here(&actor, key.as_ref(), command, now_ms).await },
            );
        match task.await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Corrupt(format!("the commit ended: {error}")).into()),
        }
    }

    async fn commit_here(
        &self,
        actor: &Actor,
        key: Option<&Idempotency>,
        mut command: Command,
        now_ms: u64,
    ) -> Result<Committed, CommitError> {
        let mut writer = self.writer.lock().await;
        self.settle(&mut writer).await?;
        if let Some(key) = key
            && let Some(outcome) = seen(&mut writer.connection, actor, key, now_ms).await?
        {
            return Ok(Committed { outcome, replayed: true });
        }
        look_up(&mut writer.connection, &mut command).await?;
        let decision = decide(&self.state.read(), actor, &command, now_ms)?;
        let committed = Committed { outcome: decision.outcome.clone(), replayed: false };
        if decision.changes.is_empty() && key.is_none() {
            return Ok(committed);
        }
        // Until the transaction is known to have ended, what is in memory may be behind the disk.
        writer.in_doubt = true;
        let written = self.transact(&mut writer.connection, actor, key, &decision, now_ms).await;
        let lines = match written {
            Ok(lines) => lines,
            Err(error) => {
                // What did get to the disk is to be known and told at once, not with the next commit;
                // should this fail too, that one tries again.
                let settled = self.settle(&mut writer).await;
                tracing::error!(%error, settled = settled.is_ok(), "a commit failed");
                let full = error.is_full();
                return Err(if full { CommitError::Full } else { error.into() });
            }
        };
        let head = {
            let mut state = self.state.write();
            decision.changes.iter().for_each(|change| state.apply(change));
            state.revision
        };
        writer.in_doubt = false;
        self.publisher.publish(lines, head);
        Ok(committed)
    }

    /// Drops idempotency keys that are too old or too many, and the oldest rows of the audit log.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn sweep(&self, now_ms: u64) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let c = &mut writer.connection;
        sqlx::query("DELETE FROM idempotency WHERE created_ms <= ?")
            .bind(signed(now_ms.saturating_sub(KEY_LIFETIME_MS)))
            .execute(&mut *c)
            .await?;
        sqlx::query(
            "DELETE FROM idempotency WHERE created_ms <= coalesce((SELECT created_ms
             FROM idempotency ORDER BY created_ms DESC LIMIT 1 OFFSET ?), -1)",
        )
        .bind(MAX_KEYS)
        .execute(&mut *c)
        .await?;
        sqlx::query("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?")
            .bind(MAX_AUDIT_ROWS)
            .execute(c)
            .await?;
        Ok(())
    }

    /// After a commit that ended in doubt: reads the state anew, over a new connection. SQLite ends
    /// some transactions by itself (when the disk is full), and a connection that still counts on one
    /// refuses to begin another.
    pub(super) async fn settle(&self, writer: &mut Writer) -> Result<(), StoreError> {
        if !writer.in_doubt {
            return Ok(());
        }
        let mut connection = connect(&writer.path).await?;
        let mut state = load(&mut connection).await?;
        writer.connection = connection;
        let head = state.revision;
        {
            let mut current = self.state.write();
            state.quotas = current.quotas;
            *current = state;
        }
        writer.in_doubt = false;
        // Streams read what they have missed from the store.
        self.publisher.reset(head);
        Ok(())
    }

    /// One transaction with everything that belongs together: the revision, the changes, the audit
    /// row and the idempotency key.
    async fn transact(
        &self,
        connection: &mut SqliteConnection,
        actor: &Actor,
        key: Option<&Idempotency>,
        decision: &Decision,
        now_ms: u64,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let c = &mut *transaction;
        let mut head = None;
        let mut lines = Vec::new();
        for change in &decision.changes {
            write(c, change).await?;
            if let Some(revision) = change.revision() {
                head = Some(revision);
                lines.push(feed_line(c, change).await?);
            }
        }
        if let Some(revision) = head {
            let taken = i64::try_from(lines.len()).unwrap_or(i64::MAX);
            // The counter must stand just before: otherwise memory and disk have parted.
            let done = sqlx::query("UPDATE head SET revision = ? WHERE revision = ?")
                .bind(signed(revision.0))
                .bind(signed(revision.0).saturating_sub(taken))
                .execute(&mut *c)
                .await?;
            if done.rows_affected() != 1 {
                return Err(StoreError::Corrupt(format!("revision {revision} is not the next")));
            }
        }
        audit(c, actor, decision, now_ms).await?;
        if let Some(key) = key {
            remember(c, actor, key, &decision.outcome, now_ms).await?;
        }
        transaction.commit().await?;
        Ok(lines)
    }
}

async fn audit(
    c: &mut SqliteConnection,
    actor: &Actor,
    decision: &Decision,
    now_ms: u64,
) -> Result<(), StoreError> {
    let Some((action, target)) = &decision.audit else { return Ok(()) };
    sqlx::query(
        "INSERT INTO audit (at_ms, revision, tenant, actor, actor_id, action, target)
         VALUES (?, (SELECT revision FROM head), ?, ?, ?, ?, ?)",
    )
    .bind(signed(now_ms))
    .bind(&actor.tenant)
    .bind(&actor.name)
    .bind(&actor.id)
    .bind(action)
    .bind(target)
    .execute(c)
    .await?;
    Ok(())
}

async fn seen(
    c: &mut SqliteConnection,
    actor: &Actor,
    key: &Idempotency,
    now_ms: u64,
) -> Result<Option<Outcome>, CommitError> {
    let row = sqlx::query(
        "SELECT fingerprint, outcome FROM idempotency
         WHERE tenant = ? AND key = ? AND created_ms > ?",
    )
    .bind(&actor.tenant)
    .bind(&key.key)
    .bind(signed(now_ms.saturating_sub(KEY_LIFETIME_MS)))
    .fetch_optional(c)
    .await
    .map_err(StoreError::from)?;
    let Some(row) = row else { return Ok(None) };
    let fingerprint: Vec<u8> = row.try_get("fingerprint").map_err(StoreError::from)?;
    if fingerprint != key.fingerprint {
        return Err(CommitError::KeyReused);
    }
    Ok(Some(parsed(&row, "outcome")?))
}

async fn remember(
    c: &mut SqliteConnection,
    actor: &Actor,
    key: &Idempotency,
    outcome: &Outcome,
    now_ms: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO idempotency (tenant, key, fingerprint, outcome, created_ms)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&actor.tenant)
    .bind(&key.key)
    .bind(key.fingerprint.as_slice())
    .bind(json(outcome)?)
    .bind(signed(now_ms))
    .execute(c)
    .await?;
    Ok(())
}
