-- A usage report has quantities and no amounts.
ALTER TABLE invoice_lines ALTER COLUMN amount_usd DROP NOT NULL;

-- The provider's own project that a session is billed to, as its Project named it at open; a Project may be edited
-- before the bill comes. NULL: it named none (or the session is older than this), so today's name counts.
ALTER TABLE sessions ADD COLUMN billing TEXT;
