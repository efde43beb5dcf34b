-- Entries of the sites' key-value stores. "bytes" is the key's and the value's; the value comes last, so
-- that lists need not read past it.
CREATE TABLE entries (
    site TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (site, key)
) STRICT;
-- How much there is of each site's, and the revision of the last change to any of it.
ALTER TABLE sites ADD COLUMN entries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sites ADD COLUMN entry_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sites ADD COLUMN entries_revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sites_by_entries ON sites (entries_revision) WHERE entries_revision > 0;
