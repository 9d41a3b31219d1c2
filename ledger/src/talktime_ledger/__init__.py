"""Money: prices, reservations, usage, reports. Pure core, wire models, client; server for PostgreSQL."""
