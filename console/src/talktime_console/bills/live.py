"""Asks OpenAI's Costs API itself, with an admin key: all pages of the days wanted."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import httpx
from pydantic import SecretStr

from talktime_console.problems import CommandError

OPENAI = "https://api.openai.com/v1"
# The API's most buckets per page.
BUCKETS = 180


def openai_pages(
    url: str, key: SecretStr, since: date, until: date, transport: httpx.BaseTransport | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """(name, page) of the Costs API for the UTC days since..until (exclusive). CommandError says what went wrong."""
    params: list[tuple[str, str]] = [
        ("start_time", str(_unix(since))),
        ("end_time", str(_unix(until))),
        ("bucket_width", "1d"),
        ("limit", str(min(BUCKETS, max(1, (until - since) // timedelta(days=1))))),
        ("group_by", "project_id"),
        ("group_by", "line_item"),
    ]
    pages: list[tuple[str, dict[str, Any]]] = []
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, transport=transport) as client:
        page: str | None = None
        while True:
            more = [("page", page)] if page else []
            try:
                answer = client.get("/organization/costs", params=[*params, *more])
                answer.raise_for_status()
                document = answer.json()
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                fix = "an admin key (sk-admin-...) is needed" if status in (401, 403) else "try again later"
                raise CommandError(f"OpenAI's Costs API answered {status}", fix=fix) from error
            except (httpx.HTTPError, ValueError) as error:
                raise CommandError(f"OpenAI's Costs API at {url}: {type(error).__name__}: {error}") from error
            pages.append((f"page {len(pages) + 1}", document))
            page = document.get("next_page") if document.get("has_more") else None
            if page is None:
                return pages


def _unix(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())
