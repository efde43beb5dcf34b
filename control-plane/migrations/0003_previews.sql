-- The previews of each site, whole, as JSON with tokens as hashes; and the revision of the last change.
ALTER TABLE sites ADD COLUMN previews TEXT NOT NULL DEFAULT '[]';
ALTER TABLE sites ADD COLUMN previews_revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sites_by_previews ON sites (previews_revision) WHERE previews_revision > 0;
