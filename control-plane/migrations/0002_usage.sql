-- What handlers have used, by hour (hours since the Unix epoch, in UTC).
CREATE TABLE usage (
    site TEXT NOT NULL, hour INTEGER NOT NULL, handler TEXT NOT NULL, version INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL, wall_us INTEGER NOT NULL, memory_kib_ms INTEGER NOT NULL,
    fetches INTEGER NOT NULL, bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL,
    PRIMARY KEY (site, hour, handler, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_hour ON usage (hour);
CREATE TABLE usage_outcomes (
    site TEXT NOT NULL, hour INTEGER NOT NULL, handler TEXT NOT NULL, version INTEGER NOT NULL,
    outcome TEXT NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (site, hour, handler, version, outcome)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_outcomes_by_hour ON usage_outcomes (hour);
-- The highest batch counted of each epoch; written with the sums of that batch.
CREATE TABLE usage_epochs (
    epoch TEXT PRIMARY KEY, edge TEXT NOT NULL, applied INTEGER NOT NULL, seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_epochs_by_edge ON usage_epochs (edge, seen_ms);
