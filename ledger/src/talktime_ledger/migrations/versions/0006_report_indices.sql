-- A block range index finds nothing in blocks it has not summarized, so all new ones are read: the last minutes, which
-- every report asks for, cost as much as the table is long since its last vacuum. A tree over ids that only grow is
-- cheap to extend.
DROP INDEX entries_by_tx;

CREATE INDEX entries_by_tx ON entries (tx);

-- Days are asked for seldom (a bill), blocks are in their order: ranges do, if they are summarized as they fill up.
ALTER INDEX entries_by_day SET (autosummarize = on);
