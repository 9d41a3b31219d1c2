"""``python -m talktime_gateway``."""

from __future__ import annotations

import uvicorn
from talktime_ledger import logs

from .app import create_app
from .settings import Settings


def main() -> None:
    """Serve until SIGTERM; requests in flight are finished first."""
    settings = Settings()
    logs.configure("gateway")
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=20,
    )


if __name__ == "__main__":
    main()
