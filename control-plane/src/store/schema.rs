//! The schema, step by step: a step that was released never changes, what is new comes as the next one.

use super::StoreError;
use futures::future::BoxFuture;
use sqlx::SqliteConnection;
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migration, MigrationSource, MigrationType, Migrator};

/// The name of each step and what it does; numbered from 1.
const STEPS: [(&str, &str); 5] = [
    ("first", include_str!("../../migrations/0001_first.sql")),
    ("usage", include_str!("../../migrations/0002_usage.sql")),
    ("previews", include_str!("../../migrations/0003_previews.sql")),
    ("kv", include_str!("../../migrations/0004_kv.sql")),
    ("secrets", include_str!("../../migrations/0005_secrets.sql")),
];

/// The steps as part of the program. What `sqlx::migrate!` would make of the same files, without building
/// the whole of sqlx and SQLite a second time for a macro.
#[derive(Debug)]
struct Steps;

impl MigrationSource<'static> for Steps {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let steps = (1..).zip(STEPS).map(|(version, (name, sql))| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into(), false)
        });
        Box::pin(std::future::ready(Ok(steps.collect())))
    }
}

/// Takes the steps that this store has not taken yet.
///
/// # Errors
/// When a step fails, or the store was made by a newer program or from other steps.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    Ok(Migrator::new(Steps).await?.run_direct(connection).await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::STEPS;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn every_file_is_a_step() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let files: BTreeMap<String, String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        let steps = (1..).zip(STEPS);
        let steps = steps.map(|(n, (name, sql))| (format!("{n:04}_{name}"), sql.to_owned()));
        assert_eq!(files, steps.collect());
    }
}
