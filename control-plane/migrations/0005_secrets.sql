-- Sites' secrets, each sealed with a key that is not in here: "key" says with which. Site and name are
-- sealed with it, so that no row stands in for another. What the state knows of them is all but "sealed".
CREATE TABLE secrets (
    site TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, sealed BLOB NOT NULL,
    revision INTEGER NOT NULL, set_ms INTEGER NOT NULL, set_by TEXT NOT NULL,
    PRIMARY KEY (site, name)
) STRICT;
-- The revision of the last change to a site's secrets.
ALTER TABLE sites ADD COLUMN secrets_revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sites_by_secrets ON sites (secrets_revision) WHERE secrets_revision > 0;
