-- Daily sums for reports. Which entries are in them is told by transaction: all below `through` have ended, so none can
-- come later (ids are given before the commit, in no order that can be relied on).
ALTER TABLE entries ADD COLUMN tx BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint);

CREATE INDEX entries_by_tx ON entries USING BRIN (tx) WITH (pages_per_range = 16);

ALTER TABLE sessions ADD COLUMN closed_tx BIGINT;

UPDATE sessions SET closed_tx = 0 WHERE state = 'closed';

CREATE INDEX sessions_by_closed_tx ON sessions (closed_tx) WHERE closed_tx IS NOT NULL;

CREATE FUNCTION mark_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.closed_tx = pg_current_xact_id()::text::bigint; RETURN NEW;
END $$;

CREATE TRIGGER sessions_closed BEFORE UPDATE OF state ON sessions FOR EACH ROW
  WHEN (OLD.state = 'open' AND NEW.state = 'closed') EXECUTE FUNCTION mark_closed();

CREATE TABLE spend_daily (
  project_id        UUID NOT NULL REFERENCES projects(id),
  day               DATE NOT NULL,
  provider          TEXT NOT NULL,
  model             TEXT NOT NULL,
  sessions          BIGINT NOT NULL DEFAULT 0,
  duration_sec      BIGINT NOT NULL DEFAULT 0,
  ai_cost_usd       NUMERIC(18,9) NOT NULL DEFAULT 0,
  transport_cost    NUMERIC(18,9) NOT NULL DEFAULT 0,
  total_cost_usd    NUMERIC(18,9) NOT NULL DEFAULT 0,
  unmetered_usd     NUMERIC(18,9) NOT NULL DEFAULT 0,
  audio_in_tokens   BIGINT NOT NULL DEFAULT 0,
  audio_out_tokens  BIGINT NOT NULL DEFAULT 0,
  text_tokens       BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, day, provider, model)
);

CREATE INDEX spend_daily_by_day ON spend_daily (day);

CREATE TABLE rollup_mark (
  id                INTEGER PRIMARY KEY CHECK (id = 1),
  through           BIGINT NOT NULL
);

INSERT INTO rollup_mark (id, through) VALUES (1, 0);
