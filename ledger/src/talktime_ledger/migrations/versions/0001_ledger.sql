-- The ledger. Money is USD, NUMERIC(18,9). Statements are separated by a blank line.

CREATE TABLE projects (
  id                UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  namespace         TEXT NOT NULL,
  name              TEXT NOT NULL,
  uid               TEXT NOT NULL,
  generation        BIGINT NOT NULL,
  paused            BOOLEAN NOT NULL DEFAULT FALSE,
  deleted_at        TIMESTAMPTZ,
  spec              JSONB NOT NULL,
  instructions      TEXT NOT NULL,
  access_keys       JSONB NOT NULL DEFAULT '[]',
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at        TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (namespace, name)
);

-- One balance: a project in a period and generation, or a participant of a project. Every grant is one guarded UPDATE of this row.
-- `ceiling` is above `budget` only after a budget was lowered or something billed exceeded what was held; grants look at `budget` alone.
CREATE TABLE accounts (
  id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id        UUID NOT NULL REFERENCES projects(id),
  kind              TEXT NOT NULL CHECK (kind IN ('project', 'participant')),
  subject           TEXT NOT NULL DEFAULT '',
  period            TEXT NOT NULL,
  generation        INTEGER NOT NULL,
  budget            NUMERIC(18,9) NOT NULL CHECK (budget >= 0),
  ceiling           NUMERIC(18,9) NOT NULL,
  posted            NUMERIC(18,9) NOT NULL DEFAULT 0 CHECK (posted >= 0),
  reserved          NUMERIC(18,9) NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  open_sessions     INTEGER NOT NULL DEFAULT 0 CHECK (open_sessions >= 0),
  soft_at           TIMESTAMPTZ,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (project_id, kind, subject, period, generation),
  CONSTRAINT never_over_budget CHECK (posted + reserved <= GREATEST(budget, ceiling))
) WITH (fillfactor = 50);

CREATE TABLE price_snapshots (
  id                TEXT PRIMARY KEY,
  card              TEXT NOT NULL,
  vendor            TEXT NOT NULL,
  model             TEXT NOT NULL,
  effective_from    TIMESTAMPTZ NOT NULL,
  body              JSONB NOT NULL,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE sessions (
  id                     UUID PRIMARY KEY,
  project_id             UUID NOT NULL REFERENCES projects(id),
  account_id             BIGINT NOT NULL REFERENCES accounts(id),
  participant_account_id BIGINT REFERENCES accounts(id),
  provider               TEXT NOT NULL,
  api                    TEXT NOT NULL,
  vendor                 TEXT NOT NULL,
  model                  TEXT NOT NULL,
  state                  TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
  epoch                  INTEGER NOT NULL DEFAULT 1,
  worker                 TEXT,
  participant_identity   TEXT NOT NULL,
  participant_key        TEXT,
  observers              JSONB NOT NULL DEFAULT '[]',
  media                  JSONB NOT NULL DEFAULT '{}',
  config                 JSONB NOT NULL,
  rates                  JSONB NOT NULL,
  limit_usd              NUMERIC(18,9) NOT NULL,
  soft_percent           INTEGER NOT NULL,
  w_usd                  NUMERIC(18,9) NOT NULL,
  goodbye_usd            NUMERIC(18,9) NOT NULL,
  transport_hold_usd     NUMERIC(18,9) NOT NULL DEFAULT 0,
  hold                   INTEGER NOT NULL DEFAULT 1,
  posted                 NUMERIC(18,9) NOT NULL DEFAULT 0 CHECK (posted >= 0),
  reserved               NUMERIC(18,9) NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  in_flight              NUMERIC(18,9) NOT NULL DEFAULT 0,
  burn_usd_min           NUMERIC(18,9),
  last_n                 INTEGER NOT NULL DEFAULT 0,
  last_answer            JSONB,
  last_use_at            TIMESTAMPTZ,
  valid_until            TIMESTAMPTZ NOT NULL,
  opened_at              TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  attached_at            TIMESTAMPTZ,
  closed_at              TIMESTAMPTZ,
  close_reason           TEXT,
  soft_at                TIMESTAMPTZ,
  hard_at                TIMESTAMPTZ,
  wrap_up_at             TIMESTAMPTZ,
  turns                  INTEGER NOT NULL DEFAULT 0,
  duration_sec           INTEGER NOT NULL DEFAULT 0,
  events                 JSONB NOT NULL DEFAULT '[]',
  transport_seconds      JSONB NOT NULL DEFAULT '{}',
  CONSTRAINT nothing_held_when_closed CHECK (state = 'open' OR reserved = 0)
) WITH (fillfactor = 70);

CREATE INDEX sessions_open ON sessions (project_id, valid_until) WHERE state = 'open';

CREATE INDEX sessions_by_project ON sessions (project_id, opened_at DESC);

-- The latest revision of each billed thing; its money history is in entries.
CREATE TABLE usage_events (
  id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_id        UUID NOT NULL REFERENCES sessions(id),
  key               TEXT NOT NULL,
  kind              TEXT NOT NULL,
  model             TEXT NOT NULL,
  meters            JSONB NOT NULL,
  occurred_at       TIMESTAMPTZ NOT NULL,
  status            TEXT NOT NULL,
  unmetered         BOOLEAN NOT NULL DEFAULT FALSE,
  cost_usd          NUMERIC(18,9) NOT NULL,
  snapshot_id       TEXT REFERENCES price_snapshots(id),
  epoch             INTEGER NOT NULL,
  revision          INTEGER NOT NULL DEFAULT 1,
  received_at       TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (session_id, key)
);

-- Append-only. account_id is NULL for transport that the budget does not include.
CREATE TABLE entries (
  id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id        BIGINT REFERENCES accounts(id),
  participant_account_id BIGINT REFERENCES accounts(id),
  project_id        UUID NOT NULL REFERENCES projects(id),
  session_id        UUID NOT NULL REFERENCES sessions(id),
  usage_event_id    BIGINT REFERENCES usage_events(id),
  kind              TEXT NOT NULL CHECK (kind IN ('usage', 'correction', 'unmetered', 'assumed', 'reversal', 'transport')),
  usage_kind        TEXT NOT NULL,
  leg               TEXT NOT NULL CHECK (leg IN ('ai', 'transport')),
  model             TEXT NOT NULL,
  meters            JSONB NOT NULL,
  amount_usd        NUMERIC(18,9) NOT NULL,
  unmetered_usd     NUMERIC(18,9) NOT NULL DEFAULT 0,
  snapshot_id       TEXT REFERENCES price_snapshots(id),
  occurred_at       TIMESTAMPTZ NOT NULL,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE INDEX entries_by_session ON entries (session_id);

CREATE INDEX entries_by_account ON entries (account_id);

CREATE INDEX entries_by_day ON entries USING BRIN (occurred_at);

CREATE TABLE budget_audit (
  id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id        UUID NOT NULL REFERENCES projects(id),
  account_id        BIGINT REFERENCES accounts(id),
  who               TEXT NOT NULL,
  what              TEXT NOT NULL,
  old_value         TEXT,
  new_value         TEXT,
  at                TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;

CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE TRIGGER budget_audit_append_only BEFORE UPDATE OR DELETE ON budget_audit FOR EACH ROW EXECUTE FUNCTION append_only();

-- A projection of entries: one row per session x provider x model. The first 12 columns and rate_snapshot are the published schema.
CREATE TABLE session_costs (
  id                          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  session_id                  UUID NOT NULL REFERENCES sessions(id),
  project_id                  UUID NOT NULL REFERENCES projects(id),
  provider                    VARCHAR(50) NOT NULL CHECK (provider IN ('openai_realtime', 'gemini_live')),
  audio_in_tokens             BIGINT NOT NULL DEFAULT 0,
  audio_out_tokens            BIGINT NOT NULL DEFAULT 0,
  text_tokens                 BIGINT NOT NULL DEFAULT 0,
  ai_cost_usd                 NUMERIC(18,9) NOT NULL DEFAULT 0,
  transport_cost              NUMERIC(18,9) NOT NULL DEFAULT 0,
  total_cost_usd              NUMERIC(18,9) NOT NULL DEFAULT 0,
  duration_sec                INTEGER NOT NULL DEFAULT 0,
  created_at                  TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  rate_snapshot               JSONB NOT NULL DEFAULT '[]',
  model                       TEXT NOT NULL,
  audio_in_cached_tokens      BIGINT NOT NULL DEFAULT 0,
  text_in_tokens              BIGINT NOT NULL DEFAULT 0,
  text_in_cached_tokens       BIGINT NOT NULL DEFAULT 0,
  text_out_tokens             BIGINT NOT NULL DEFAULT 0,
  thoughts_tokens             BIGINT NOT NULL DEFAULT 0,
  other_tokens                BIGINT NOT NULL DEFAULT 0,
  transcription_audio_tokens  BIGINT NOT NULL DEFAULT 0,
  transcription_text_tokens   BIGINT NOT NULL DEFAULT 0,
  transcription_cost_usd      NUMERIC(18,9) NOT NULL DEFAULT 0,
  closing_cost_usd            NUMERIC(18,9) NOT NULL DEFAULT 0,
  unmetered_usd               NUMERIC(18,9) NOT NULL DEFAULT 0,
  responses                   INTEGER NOT NULL DEFAULT 0,
  turns                       INTEGER NOT NULL DEFAULT 0,
  state                       TEXT NOT NULL DEFAULT 'estimated' CHECK (state IN ('estimated', 'provisional', 'invoiced')),
  UNIQUE (session_id, provider, model),
  CONSTRAINT total_is_the_sum CHECK (total_cost_usd = ai_cost_usd + transport_cost)
) WITH (fillfactor = 70);

CREATE INDEX idx_session_costs_project ON session_costs (project_id, created_at);

CREATE INDEX idx_session_costs_provider ON session_costs (provider, created_at);

CREATE TABLE rate_cards (
  name              TEXT PRIMARY KEY,
  spec              JSONB NOT NULL,
  updated_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE pools (
  namespace         TEXT NOT NULL,
  name              TEXT NOT NULL,
  body              JSONB NOT NULL,
  PRIMARY KEY (namespace, name)
);

-- Versions of what replicas cache: `rates`, `directory`.
CREATE TABLE revisions (
  name              TEXT PRIMARY KEY,
  value             BIGINT NOT NULL DEFAULT 1
);

INSERT INTO revisions (name) VALUES ('rates'), ('directory');

CREATE TABLE refusals (
  project_id        UUID NOT NULL REFERENCES projects(id),
  reason            TEXT NOT NULL,
  count             BIGINT NOT NULL DEFAULT 0,
  last_at           TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (project_id, reason)
);

CREATE TABLE provider_reports (
  project_id        UUID NOT NULL REFERENCES projects(id),
  provider          TEXT NOT NULL,
  ok                BOOLEAN NOT NULL,
  code              TEXT NOT NULL,
  message           TEXT NOT NULL,
  since             TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (project_id, provider)
);

CREATE TABLE tickets (
  sha256            TEXT PRIMARY KEY,
  project_id        UUID NOT NULL REFERENCES projects(id),
  participant_key   TEXT,
  expires_at        TIMESTAMPTZ NOT NULL,
  used_at           TIMESTAMPTZ,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE clips (
  project_id        UUID NOT NULL REFERENCES projects(id),
  key               TEXT NOT NULL,
  pcm               BYTEA NOT NULL,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (project_id, key)
);

CREATE TABLE outbox (
  id                UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  project_id        UUID NOT NULL REFERENCES projects(id),
  session_id        UUID NOT NULL REFERENCES sessions(id),
  kind              TEXT NOT NULL,
  url               TEXT NOT NULL,
  body              JSONB NOT NULL,
  attempts          INTEGER NOT NULL DEFAULT 0,
  next_at           TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  delivered_at      TIMESTAMPTZ,
  abandoned_at      TIMESTAMPTZ,
  last_error        TEXT,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (session_id, kind)
);

CREATE INDEX outbox_due ON outbox (next_at) WHERE delivered_at IS NULL AND abandoned_at IS NULL;

CREATE TABLE jwks_cache (
  issuer            TEXT PRIMARY KEY,
  jwks              JSONB NOT NULL,
  fetched_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

-- When a ledger was last alive: the sweeper extends validity by the ledger's own downtime.
CREATE TABLE heartbeat (
  id                INTEGER PRIMARY KEY CHECK (id = 1),
  alive_at          TIMESTAMPTZ NOT NULL
);
