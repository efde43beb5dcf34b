-- The store of one control plane. Times are milliseconds since the Unix epoch; revisions come from
-- the one row of "head", in the transaction of the change that takes them.
CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, trimmed INTEGER NOT NULL, history TEXT NOT NULL) STRICT;
CREATE TABLE tenants (name TEXT PRIMARY KEY, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, secret BLOB NOT NULL UNIQUE, name TEXT NOT NULL, tenant TEXT NOT NULL,
    scopes TEXT NOT NULL, created_ms INTEGER NOT NULL, expires_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE sites (
    name TEXT PRIMARY KEY, tenant TEXT NOT NULL, latest INTEGER NOT NULL, active INTEGER,
    previous INTEGER, revision INTEGER NOT NULL, removed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sites_by_revision ON sites (revision);
CREATE TABLE versions (
    site TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, domains TEXT NOT NULL,
    created_ms INTEGER NOT NULL, created_by TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (site, version)
) STRICT;
CREATE TABLE blobs (
    tenant TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL, created_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE purges (
    revision INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, site TEXT NOT NULL,
    mode TEXT NOT NULL, selectors TEXT NOT NULL, created_ms INTEGER NOT NULL, created_by TEXT NOT NULL
) STRICT;
CREATE INDEX purges_by_tenant ON purges (tenant, revision);
CREATE INDEX purges_by_site ON purges (site, revision);
CREATE TABLE edges (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, secret BLOB NOT NULL UNIQUE,
    enrolled INTEGER NOT NULL, removed INTEGER, applied INTEGER NOT NULL, crossed INTEGER NOT NULL,
    seen_ms INTEGER, refusals TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- What each edge has applied: a purge's receipt.
CREATE TABLE receipts (
    revision INTEGER NOT NULL, edge TEXT NOT NULL, applied_ms INTEGER NOT NULL, matched INTEGER,
    took_us INTEGER, PRIMARY KEY (revision, edge)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, revision INTEGER NOT NULL,
    tenant TEXT NOT NULL, actor TEXT NOT NULL, actor_id TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_tenant ON audit (tenant, id);
-- Outcomes by idempotency key; no secrets.
CREATE TABLE idempotency (
    tenant TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, outcome TEXT NOT NULL,
    created_ms INTEGER NOT NULL, PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_ms);
