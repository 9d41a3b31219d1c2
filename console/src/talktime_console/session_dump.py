"""A session as the ledger tells it, back into meters. Its rows are sums, so some of it is a bound. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from talktime_ledger.core.meters import Meter
from talktime_ledger.wire import SessionCosts

from .problems import InputError

TRANSPORT = ("livekit", "selfhosted")


@dataclass(frozen=True)
class Item:
    """One billed thing of a file.

    ``model`` and ``at`` (UTC) are its own, when the file tells them. Items with the same ``identity`` (not empty) and
    name are the same billed thing, told again. ``posted``: USD the ledger booked for it, where it tells.
    """

    name: str
    meters: Mapping[Meter, int]
    model: str | None = None
    at: datetime | None = None
    identity: str = ""
    posted: Decimal | None = None


def items_of_session(dump: Mapping[str, Any], moment: Callable[[str], datetime]) -> Iterator[Item]:
    """One item per row of ``costs`` and one for its transcription.

    Rows keep image, tool and unassigned tokens as one number, and the text of transcriptions likewise: here the first
    are ``unassigned_in`` (the dearest input), the second ``text_out``. So the price is exact without them, else a
    bound.
    """
    told = dump.get("session")  # the ledger's report nests it, `talktime sessions` gives its id
    session = told if isinstance(told, Mapping) else dump
    rows = dump.get("costs") or session.get("costs")
    if not isinstance(rows, list) or not rows:
        raise InputError(
            "a session without cost rows has no tokens to price", field="costs", fix="take it after its first response"
        )
    name = str(session.get("session_id") or session.get("session") or "session")
    for number, raw in enumerate(rows):
        yield from _row_items(name, raw, f"costs[{number}]", moment)


def _row_items(name: str, raw: Any, place: str, moment: Callable[[str], datetime]) -> Iterator[Item]:
    try:
        row = SessionCosts.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(first["msg"], field=".".join([place, *(str(part) for part in first["loc"])])) from error
    talk = {
        Meter.AUDIO_IN: row.audio_in_tokens - row.audio_in_cached_tokens,
        Meter.AUDIO_CACHED_IN: row.audio_in_cached_tokens,
        Meter.AUDIO_OUT: row.audio_out_tokens,
        Meter.TEXT_IN: row.text_in_tokens - row.text_in_cached_tokens,
        Meter.TEXT_CACHED_IN: row.text_in_cached_tokens,
        Meter.TEXT_OUT: row.text_out_tokens,
        Meter.THOUGHTS_OUT: row.thoughts_tokens,
        Meter.UNASSIGNED_IN: row.other_tokens,
    }
    if bad := [meter.value for meter, count in talk.items() if count < 0]:
        raise InputError(f"more cached tokens than tokens ({', '.join(bad)})", field=f"{place}.audio_in_cached_tokens")
    spoken = [s for s in row.rate_snapshot if s.get("vendor") not in TRANSPORT]
    changed = [str(s.get("effective_from")) for s in spoken if s.get("model") == row.model]
    if len(set(changed)) > 1:
        raise InputError(
            f"priced with entries of {', '.join(changed)}: a row's tokens cannot be told apart by time",
            field=f"{place}.rate_snapshot",
            fix="price its usages (raw provider events) instead",
        )
    posted = row.ai_cost_usd - row.transcription_cost_usd
    yield Item(f"{name} {row.model}", _counted(talk), row.model, row.created_at, posted=posted)
    heard = {Meter.AUDIO_IN: row.transcription_audio_tokens, Meter.TEXT_OUT: row.transcription_text_tokens}
    if any(heard.values()):
        others = sorted({str(s.get("model")) for s in spoken} - {row.model})
        if len(others) != 1:
            raise InputError(
                f"tells {len(others)} models beside {row.model}, so the one that transcribed is not known",
                field=f"{place}.rate_snapshot",
            )
        counted = _counted(heard)
        yield Item(f"{name} {others[0]}", counted, others[0], row.created_at, posted=row.transcription_cost_usd)


def _counted(meters: Mapping[Meter, int]) -> dict[Meter, int]:
    return {meter: count for meter, count in meters.items() if count}
