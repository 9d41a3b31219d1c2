-- Sessions that lost their agent and wait for the next one, the pods that say they are alive, and what was said so far.
ALTER TABLE sessions ADD COLUMN lost_epoch INTEGER;

ALTER TABLE sessions ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;

CREATE INDEX sessions_lost ON sessions (id) WHERE state = 'open' AND lost_epoch = epoch;

-- Unlogged: after a crash of the database nothing is known of any pod, until it says so again (law 6).
CREATE UNLOGGED TABLE worker_beats (
  project_id        UUID NOT NULL,
  host              TEXT NOT NULL,
  seen_at           TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (project_id, host)
) WITH (fillfactor = 50);

-- Encrypted (AES-256-GCM, the key is not in the database), only while the session is open.
CREATE TABLE session_contexts (
  session_id        UUID PRIMARY KEY REFERENCES sessions(id) ON DELETE CASCADE,
  epoch             INTEGER NOT NULL,
  sealed            BYTEA NOT NULL,
  updated_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

-- However a session ends, what was said in it goes in the same transaction.
CREATE FUNCTION forget_context() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM session_contexts WHERE session_id = NEW.id; RETURN NULL;
END $$;

CREATE TRIGGER sessions_forget AFTER UPDATE OF state ON sessions FOR EACH ROW
  WHEN (OLD.state = 'open' AND NEW.state = 'closed') EXECUTE FUNCTION forget_context();
