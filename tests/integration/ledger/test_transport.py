"""The transport leg on a real ledger: card price of the seconds to the nano-dollar, bounds that come and go."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest
from talktime_ledger import wire
from talktime_ledger.client import Invalid
from talktime_ledger.resources.rate_card import RateCardSpec

from .conftest import CONSOLE, GATEWAY, OPERATOR, Stand, agent_of, opening, project_push, usage

# A price that does not divide: 0.0024 / 3600 USD a second.
PER_HOUR = Decimal("0.0024")
CLOUD_PER_HOUR = Decimal("0.03")


def minutes(vendor: str, per_hour: Decimal, **meters: Any) -> RateCardSpec:
    """A card of participant seconds; nothing else costs, unless it is said."""
    free = {"egress_bytes": {"free": True}, "video_track_seconds": {"absent": True}}
    entry = {
        "effectiveFrom": "2025-01-01T00:00:00Z",
        "meters": free | {"participant_seconds": {"usdPerHour": str(per_hour)}} | meters,
        "source": "test",
        "checkedAt": "2026-11-01",
    }
    return RateCardSpec.model_validate({"provider": vendor, "model": "participant", "entries": [entry]})


def nano(seconds: int, per_hour: Decimal = PER_HOUR) -> Decimal:
    """What the card says of so many seconds, rounded once."""
    return (per_hour * seconds / 3600).quantize(Decimal("1e-9"))


class Interview:
    """An open session whose transport is reported by the gateway."""

    def __init__(self, stand: Stand, included: bool = True) -> None:
        self.stand, self.included = stand, included
        self.id: uuid.UUID = uuid.uuid4()
        self.gateway = stand.client(GATEWAY)

    async def begin(self) -> None:
        operator = self.stand.client(OPERATOR)
        await operator.put_rate_card("sh", minutes("selfhosted", PER_HOUR))
        await operator.put_rate_card("lk", minutes("livekit", CLOUD_PER_HOUR))
        await operator.put_project("study", "media", project_push(budget={"includeTransport": self.included}))
        await self.gateway.open_session(opening("media", self.id))
        await self.stand.client(agent_of("media")).attach(str(self.id), wire.Attach(epoch=1, worker="w"))

    async def tell(self, **report: Any) -> None:
        await self.gateway.post_transport(self.id, wire.Transport.model_validate(report))

    async def close(self, *usages: wire.Usage) -> None:
        request = wire.Close(epoch=1, n=1, reason="done", usages=usages)
        await self.stand.client(agent_of("media")).close(str(self.id), request)

    async def row(self) -> dict[str, Any]:
        """Its row of session_costs."""
        rows = await self.stand.sql("SELECT * FROM session_costs WHERE session_id = $1", self.id)
        return dict(rows[0])

    async def transport(self) -> tuple[Decimal, Decimal]:
        """Transport and unmetered USD of the session; the books hold meanwhile."""
        await self.stand.assert_laws()
        row = await self.row()
        assert row["total_cost_usd"] == row["ai_cost_usd"] + row["transport_cost"]
        return row["transport_cost"], row["unmetered_usd"]


@pytest.mark.parametrize("included", [True, False])
async def test_everybody_in_the_room_counts_and_the_session_costs_the_cards_price_to_the_nano_dollar(
    stand: Stand, included: bool
) -> None:
    interview = Interview(stand, included)
    await interview.begin()
    people = ("participant-1/PA_1", "agent-AJ_1/PA_2", "observer-1/PA_3")
    for seconds in range(0, 120, 7):  # many steps, each of a price that must be rounded
        await interview.tell(participant_seconds=dict.fromkeys(people, seconds))
    assert await interview.transport() == (nano(3 * 119), 0)
    await interview.close(usage("a"))
    row = await interview.row()
    assert row["ai_cost_usd"] == Decimal("0.004")
    assert row["transport_cost"] == nano(357)
    assert row["total_cost_usd"] == Decimal("0.004") + nano(357)
    account = await stand.account("media")
    assert account["posted"] == (row["total_cost_usd"] if included else row["ai_cost_usd"])
    listed = await stand.client(GATEWAY).session(str(interview.id))
    assert listed.costs[0].transport_cost == nano(357)


async def test_repeats_and_older_words_cost_nothing_more(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    for seconds in (30, 60, 60, 45, 60):
        await interview.tell(participant_seconds={"participant-1/PA_1": seconds})
    assert await interview.transport() == (nano(60), 0)


@pytest.mark.parametrize("included", [True, False])
async def test_lost_time_is_unmetered_until_the_leave_is_told(stand: Stand, included: bool) -> None:
    interview = Interview(stand, included)
    await interview.begin()
    key = "participant-1/PA_1"
    await interview.tell(participant_seconds={key: 45})
    await interview.tell(participant_seconds={key: 45}, gone_seconds={key: 60})
    assert await interview.transport() == (nano(60), nano(60) - nano(45))
    await interview.tell(participant_seconds={key: 48}, gone_seconds={key: 62})  # another replica looked later
    assert await interview.transport() == (nano(60), nano(60) - nano(48))
    await interview.close()
    for _ in range(2):  # LiveKit may tell it twice, and it may be late
        await interview.tell(left_seconds={key: 52})
        assert await interview.transport() == (nano(52), 0)
    await interview.tell(participant_seconds={key: 45}, gone_seconds={key: 60})
    assert await interview.transport() == (nano(52), 0), "after the exact word nothing else counts"
    account = await stand.account("media")
    assert account["posted"] == (nano(52) if included else 0)


async def test_a_leave_told_first_leaves_nothing_to_assume(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    await interview.tell(left_seconds={"participant-1/PA_1": 3})  # never seen by a round
    await interview.tell(gone_seconds={"participant-1/PA_1": 15})
    assert await interview.transport() == (nano(3), 0)


async def test_somebody_missed_and_seen_again_was_not_gone(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    key = "participant-1/PA_1"
    await interview.tell(participant_seconds={key: 45}, gone_seconds={key: 60})
    await interview.tell(participant_seconds={key: 75})
    assert await interview.transport() == (nano(75), 0)


async def test_cloud_bills_a_begun_minute_of_each_connection(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    first, again = "participant-1/PA_1", "participant-1/PA_2"
    await interview.tell(mode="cloud", participant_seconds={first: 50})
    assert await interview.transport() == (nano(60, CLOUD_PER_HOUR), 0), "at once, while it runs"
    await interview.tell(mode="cloud", participant_seconds={first: 58})
    assert await interview.transport() == (nano(60, CLOUD_PER_HOUR), 0)
    await interview.tell(mode="cloud", participant_seconds={again: 10})
    assert await interview.transport() == (nano(120, CLOUD_PER_HOUR), 0), "10 s of reconnecting are a minute"
    await interview.tell(mode="cloud", gone_seconds={first: 63})
    assert await interview.transport() == (nano(180, CLOUD_PER_HOUR), nano(60, CLOUD_PER_HOUR))
    await interview.tell(mode="cloud", left_seconds={first: 59})
    assert await interview.transport() == (nano(120, CLOUD_PER_HOUR), 0)


async def test_a_session_that_moved_costs_each_medium_by_its_own_card(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    await interview.tell(participant_seconds={"participant-1/PA_1": 45})
    await interview.tell(mode="cloud", participant_seconds={"participant-1/PA_2": 61, "participant-1/PA_1": 50})
    assert await interview.transport() == (nano(50) + nano(120, CLOUD_PER_HOUR), 0)


async def test_a_bound_goes_back_at_the_price_it_was_posted_at(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    key = "participant-1/PA_1"
    await interview.tell(participant_seconds={key: 45}, gone_seconds={key: 60})
    dearer = minutes("selfhosted", PER_HOUR * 10)
    await stand.client(OPERATOR).put_rate_card("sh", dearer)
    await interview.tell(left_seconds={key: 46})
    cost, unmetered = await interview.transport()
    assert unmetered == 0
    assert cost == nano(45) + nano(46, PER_HOUR * 10) - nano(45, PER_HOUR * 10)


async def test_the_report_counts_every_connection_and_who_was_in_rooms_at_once(stand: Stand) -> None:
    first, second = Interview(stand), Interview(stand)
    await first.begin()
    await first.tell(participant_seconds={"participant-1/PA_1": 45, "agent-AJ_1/PA_2": 130})
    await first.tell(participant_seconds={"participant-1/PA_1": 45}, gone_seconds={"participant-1/PA_1": 61})
    await second.begin()
    await second.tell(mode="cloud", participant_seconds={"participant-1/PA_3": 10})
    await second.tell(mode="cloud", left_seconds={"participant-1/PA_3": 12})
    await second.close()
    third = Interview(stand)
    await stand.client(GATEWAY).open_session(opening("media", third.id))  # nobody took it up
    await third.tell(participant_seconds={"participant-1/PA_4": 20})
    console = stand.client(CONSOLE)
    for by in ("", "project", "pool", "project,pool"):
        (row,) = await console.transport_report(by=by)
        assert (row.namespace, row.project) == (("study", "media") if "project" in by else (None, None))
        assert (row.sessions, row.peak_sessions, row.connections) == (2, 2, 4)
        # 61 that nobody saw the end of, 130, 12 on Cloud, 20.
        assert (row.participant_seconds, row.selfhosted_seconds) == (61 + 130 + 12 + 20, 61 + 130 + 20)
        assert (row.begun_minutes, row.selfhosted_begun_minutes) == (2 + 3 + 1 + 1, 2 + 3 + 1)
    fourth = Interview(stand)
    await fourth.begin()  # after the second has ended: not three at once
    (row,) = await console.transport_report(namespace="study", project="media", by="")
    assert (row.sessions, row.peak_sessions) == (3, 2)
    assert await console.transport_report(until="2026-01-01") == ()
    assert await console.transport_report(project="limit") == ()
    with pytest.raises(Invalid, match="none of project, pool"):
        await console.transport_report(by="day")
