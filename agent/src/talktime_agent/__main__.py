"""`python -m talktime_agent start`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

if __name__ == "__main__":
    # The first process of a container is deaf to SIGTERM until it says otherwise, and what follows takes seconds: a pod
    # deleted meanwhile would live until its grace period, which is as long as an interview may last. Nothing has begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

from talktime_ledger import logs


class NoPersonalData(logging.Filter):
    """livekit marks fields that hold what people said, or instructions; they do not belong into logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Removes the fields, keeps the record."""
        for name in [name for name in record.__dict__ if name.startswith("lk.pii") or name == "job_request"]:
            del record.__dict__[name]
        return True


def main(argv: list[str] | None = None) -> int:
    """Runs the worker; the exit code."""
    parser = argparse.ArgumentParser(prog="talktime_agent", description=__doc__)
    parser.add_subparsers(dest="command", required=True).add_parser("start", help="run the worker")
    parser.parse_args(argv)
    logs.configure("agent")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(NoPersonalData())
    from talktime_agent.settings import AgentSettings
    from talktime_agent.worker import serve

    return asyncio.run(serve(AgentSettings()))


if __name__ == "__main__":
    sys.exit(main())
