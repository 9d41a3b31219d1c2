-- Bills of providers. What a bill changes is an entry of kind `invoice`; its group says which bill line it answers to.
ALTER TABLE entries ALTER COLUMN session_id DROP NOT NULL;

ALTER TABLE entries ADD COLUMN invoice_group TEXT;

ALTER TABLE entries ALTER COLUMN meters SET DEFAULT '{}';

ALTER TABLE entries DROP CONSTRAINT entries_kind_check;

ALTER TABLE entries ADD CONSTRAINT entries_kind_check
  CHECK (kind IN ('usage', 'correction', 'unmetered', 'assumed', 'reversal', 'transport', 'invoice'));

-- Only what a bill says about no session (tax, credits) is without one.
ALTER TABLE entries ADD CONSTRAINT entries_session_or_invoice CHECK (session_id IS NOT NULL OR kind = 'invoice');

CREATE INDEX entries_by_invoice ON entries (invoice_group) WHERE invoice_group IS NOT NULL;

CREATE TABLE invoices (
  id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  vendor            TEXT NOT NULL,
  source            TEXT NOT NULL,
  digest            TEXT NOT NULL,
  final             BOOLEAN NOT NULL,
  who               TEXT NOT NULL,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE invoice_lines (
  invoice_id        BIGINT NOT NULL REFERENCES invoices(id),
  day               DATE NOT NULL,
  billing           TEXT NOT NULL,
  item              TEXT NOT NULL,
  kind              TEXT NOT NULL CHECK (kind IN ('usage', 'tax', 'credit', 'adjustment', 'rounding')),
  quantity          NUMERIC(24,9),
  amount_usd        NUMERIC(18,9) NOT NULL
);

CREATE INDEX invoice_lines_by_invoice ON invoice_lines (invoice_id);

CREATE TRIGGER invoices_append_only BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE TRIGGER invoice_lines_append_only BEFORE UPDATE OR DELETE ON invoice_lines FOR EACH ROW EXECUTE FUNCTION append_only();

-- The latest settlement of one day of one model at one billing project; its history is in entries and invoice_lines.
CREATE TABLE invoice_groups (
  key               TEXT PRIMARY KEY,
  vendor            TEXT NOT NULL,
  day               DATE NOT NULL,
  billing           TEXT NOT NULL,
  model             TEXT NOT NULL,
  final             BOOLEAN NOT NULL,
  estimate_usd      NUMERIC(18,9) NOT NULL,
  billed_usd        NUMERIC(18,9) NOT NULL,
  unattributed_usd  NUMERIC(18,9) NOT NULL,
  invoice_id        BIGINT NOT NULL REFERENCES invoices(id),
  settled_at        TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE INDEX invoice_groups_by_day ON invoice_groups (vendor, day);
