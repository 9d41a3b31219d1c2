"""The connections of a session's room, as its row keeps them and as a report tells them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from talktime_ledger.core.meters import Meter, counts
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.transport import Company, lost
from talktime_ledger.core.transport import Connection as Connected
from talktime_ledger.wire import Transport


@dataclass(frozen=True, slots=True)
class Kept:
    """A connection as the session's row keeps it, with what its lost time was posted at: `usd` and `meters` on
    `account_id` (None: outside the budget). `bytes`: its traffic at most, for reports.
    """

    connection: Connected
    usd: Decimal = ZERO
    account_id: int | None = None
    meters: Mapping[Meter, int] = field(default_factory=dict)
    bytes: int = 0

    @classmethod
    def of(cls, raw: Any) -> Kept:
        """From the column `transport_seconds`: a number alone is the seconds it was seen."""
        if isinstance(raw, int):
            return cls(Connected(raw))
        connection = Connected(
            raw["seen"],
            raw.get("gone"),
            raw.get("left"),
            raw.get("cloud", False),
            raw.get("video", 0),
            raw.get("joined_ms"),
        )
        meters = counts(raw.get("lost_meters") or {})
        if raw.get("lost_usd") and not meters:  # kept by a ledger that knew seconds only
            meters = lost("", connection, Company(0, 0))
        return cls(connection, Decimal(raw.get("lost_usd", 0)), raw.get("lost_account"), meters, raw.get("bytes", 0))

    def raw(self) -> Any:
        """For the column."""
        connection = self.connection
        named: dict[str, Any] = {"seen": connection.seen}
        for name in ("gone", "left", "joined_ms"):
            if (value := getattr(connection, name)) is not None:
                named[name] = value
        for name, value in (("cloud", connection.cloud), ("video", connection.video), ("bytes", self.bytes)):
            if value:
                named[name] = value
        if self.meters:
            named |= {"lost_usd": str(self.usd), "lost_account": self.account_id, "lost_meters": dict(self.meters)}
        return named if len(named) > 1 else connection.seen


def told(request: Transport) -> dict[str, Connected]:
    """The connections of a report."""
    seen, gone, left = request.participant_seconds, request.gone_seconds, request.left_seconds
    video, joined = request.video_seconds, request.joined_at_ms
    cloud = request.mode == "cloud"
    return {
        key: Connected(seen.get(key, 0), gone.get(key), left.get(key), cloud, video.get(key, 0), joined.get(key))
        for key in {*seen, *gone, *left, *video}
    }
