"""`python -m talktime_simulator serve|participants`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """One JSON object per line, as every Talktime process logs; the simulator shares no code with them."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def main(argv: list[str] | None = None) -> int:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("livekit").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(prog="talktime_simulator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="an OpenAI Realtime and Gemini Live server that counts tokens")
    people = commands.add_parser("participants", help="synthetic participants over real WebRTC")
    # Imported per command: the server image part must not load WebRTC, nor the participants aiohttp's server.
    from . import serving
    from .participants import command

    serving.arguments(serve)
    command.arguments(people)
    options = parser.parse_args(argv)
    work = serving.run(options) if options.command == "serve" else command.run(options)
    return asyncio.run(work)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # livekit's native threads still run, and now and then one aborts the process while the interpreter is torn down.
    os._exit(code)
