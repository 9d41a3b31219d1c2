"""Logs are one JSON object a line, with session and project, and nothing that smells of a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from talktime_ledger import logs

SECRET = "sk-proj-0123456789"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, given back as it was: pytest's own handlers are on it."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def written(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a configured process writes to stdout."""
    stdout = io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    logs.configure("gateway")
    return stdout


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_is_one_object_with_session_and_project(written: io.StringIO) -> None:
    extra = {"session": "8f14e45f", "project": "research/patients", "needed": 3}
    logging.getLogger("talktime.gateway").info("session %s\nopened", "a", extra=extra)
    [line] = lines(written)
    assert datetime.fromisoformat(line.pop("ts")).tzinfo is not None
    assert line == {
        "level": "INFO",
        "logger": "talktime.gateway",
        "process": "gateway",
        "msg": "session a\nopened",
        "session": "8f14e45f",
        "project": "research/patients",
        "needed": 3,
    }


def test_without_session_and_project_the_fields_are_not_there(written: io.StringIO) -> None:
    logging.getLogger("talktime.gateway").warning("the directory is old")
    [line] = lines(written)
    assert not {"session", "project"} & set(line)


@pytest.mark.parametrize(
    "field",
    [
        "token",
        "participant_token",
        "api_key",
        "apiKey",
        "server_key",
        "secret",
        "client_secret",
        "Authorization",
        "password",
        "db_password",
        "instructions",
    ],
)
def test_what_smells_of_a_secret_is_left_out(written: io.StringIO, field: str) -> None:
    logging.getLogger("talktime").info("asked", extra={field: SECRET, "project": "a/b"})
    [line] = lines(written)
    assert SECRET not in written.getvalue()
    assert (line["msg"], line["project"]) == ("asked", "a/b")
    assert field not in line


def test_what_json_does_not_know_is_written_as_text(written: io.StringIO) -> None:
    logging.getLogger("talktime").info("at", extra={"since": datetime.fromisoformat("2026-11-22T12:00:00+00:00")})
    assert lines(written)[0]["since"] == "2026-11-22 12:00:00+00:00"


def test_a_failure_brings_its_traceback_on_the_same_line(written: io.StringIO) -> None:
    try:
        raise ValueError("no such pool")
    except ValueError:
        logging.getLogger("talktime").exception("could not")
    [line] = lines(written)
    assert "Traceback" in line["error"] and "ValueError: no such pool" in line["error"]


@pytest.mark.parametrize("noisy", ["httpx", "httpcore", "uvicorn.access"])
def test_every_request_of_a_poller_is_not_a_line(written: io.StringIO, noisy: str) -> None:
    logging.getLogger(noisy).info("GET /v1/directory?ticket=%s", SECRET)
    assert written.getvalue() == ""


def test_configuring_again_does_not_write_twice(written: io.StringIO, root: logging.Logger) -> None:
    logs.configure("gateway")
    assert len(root.handlers) == 1
