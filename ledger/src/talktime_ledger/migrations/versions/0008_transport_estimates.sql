-- The part of unmetered_usd that is transport: traffic is always an estimate, and would hide usage that never came.
ALTER TABLE spend_daily ADD COLUMN transport_unmetered_usd NUMERIC(18,9) NOT NULL DEFAULT 0;
