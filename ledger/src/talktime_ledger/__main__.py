"""`python -m talktime_ledger serve|migrate|openapi`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time

from talktime_ledger import logs


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="talktime_ledger", description="The ledger of Talktime.")
    parser.add_argument("command", choices=("serve", "migrate", "openapi"))
    command = parser.parse_args().command
    from talktime_ledger.server.settings import Settings

    if command == "openapi":
        from talktime_ledger.server.app import create_app

        json.dump(create_app(Settings(database_url="postgresql://")).openapi(), sys.stdout, indent=1, sort_keys=True)
        return 0
    settings = Settings()
    logs.configure("ledger", settings.log_level)
    if command == "migrate":
        return _migrate(settings.database_url)
    import uvicorn

    from talktime_ledger.server.app import create_app
    from talktime_ledger.server.protocol import PoliteServer, uvicorn_options

    app = create_app(settings)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, timeout_graceful_shutdown=10, **uvicorn_options()
    )
    PoliteServer(config, lambda: app.state.ledger.hub.close_streams()).run()
    return 0


def _migrate(database_url: str, patience_sec: float = 120.0) -> int:
    """Migrates; waits for a database that is still starting."""
    import asyncpg  # type: ignore[import-untyped] # ships no types
    from sqlalchemy.exc import DBAPIError

    from talktime_ledger.migrate import migrate

    log = logging.getLogger("talktime_ledger.migrate")
    deadline = time.monotonic() + patience_sec
    while True:
        try:
            migrate(database_url)
        except (OSError, asyncpg.CannotConnectNowError, DBAPIError) as error:
            starting = not isinstance(error, DBAPIError) or "CannotConnectNow" in str(error)
            if not starting:
                raise
            if time.monotonic() > deadline:
                log.error("database not reachable: %s", error)
                return 1
            log.info("waiting for the database: %s", error)
            time.sleep(1)
            continue
        log.info("schema is up to date")
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
