"""The transport leg on a real ledger: card price of the seconds to the nano-dollar, bounds that come and go."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from talktime_ledger import wire
from talktime_ledger.client import Invalid, Refused
from talktime_ledger.core.transport import AUDIO_BYTES_PER_SEC, CLOUD_BYTES, VIDEO_BYTES_PER_SEC
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
        "meters": {
            name: term
            for name, term in (free | {"participant_seconds": {"usdPerHour": str(per_hour)}} | meters).items()
            if term is not None
        },
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

    async def begin(self, selfhosted: dict[str, Any] | None = None, cloud: dict[str, Any] | None = None) -> None:
        """With further meters on the cards."""
        operator = self.stand.client(OPERATOR)
        await operator.put_rate_card("sh", minutes("selfhosted", PER_HOUR, **(selfhosted or {})))
        await operator.put_rate_card("lk", minutes("livekit", CLOUD_PER_HOUR, **(cloud or {})))
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

    async def posted(self) -> dict[str, int]:
        """The meters of its transport entries, summed."""
        rows = await self.stand.sql(
            """SELECT m.key, SUM(m.value::bigint)::bigint AS count FROM entries e CROSS JOIN LATERAL
               jsonb_each_text(e.meters) m WHERE e.session_id = $1 AND e.leg = 'transport' GROUP BY 1""",
            self.id,
        )
        return {row["key"]: row["count"] for row in rows}

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


PER_GIB = Decimal("0.128849019")
PRICED = {"egress_bytes": {"usdPerGib": str(PER_GIB)}, "video_track_seconds": {"usdPerHour": "0.06"}}


def traffic(count: int) -> Decimal:
    """What the card says of so many bytes."""
    return (PER_GIB * count / 2**30).quantize(Decimal("1e-9"))


@pytest.mark.parametrize("included", [True, False])
async def test_video_is_metered_and_traffic_an_estimate_that_is_marked_as_one(stand: Stand, included: bool) -> None:
    interview = Interview(stand, included)
    await interview.begin(selfhosted=PRICED)
    talker, agent = "participant-1/PA_1", "agent-AJ_1/PA_2"
    await interview.tell(participant_seconds={talker: 40, agent: 40}, video_seconds={talker: 6})
    await interview.tell(participant_seconds={talker: 60, agent: 60}, video_seconds={talker: 10})
    await interview.tell(participant_seconds={talker: 60, agent: 60}, video_seconds={talker: 8})  # another replica
    sent = 2 * 60 * AUDIO_BYTES_PER_SEC + 10 * VIDEO_BYTES_PER_SEC
    cost, unmetered = await interview.transport()
    assert abs(unmetered - traffic(sent)) <= Decimal("1e-9")
    assert abs(cost - (nano(120) + nano(10, Decimal("0.06")) + traffic(sent))) <= Decimal("2e-9")
    (spent,) = [row for row in await stand.client(CONSOLE).spend(project="media") if row.sessions]
    assert spent.unmetered_usd == spent.transport_unmetered_usd == unmetered, "no usage of the provider is missing"
    assert await interview.posted() == {
        "participant_seconds": 120,
        "video_track_seconds": 10,
        "egress_bytes": sent,
    }
    (row,) = await stand.client(CONSOLE).transport_report(by="pool")
    assert (row.video_track_seconds, row.egress_bytes, row.selfhosted_egress_bytes) == (10, sent, sent)


async def test_lost_time_has_traffic_that_goes_back_with_it(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin(selfhosted=PRICED)
    talker, agent = "participant-1/PA_1", "agent-AJ_1/PA_2"
    await interview.tell(participant_seconds={talker: 40, agent: 40})
    before = await interview.transport()
    await interview.tell(gone_seconds={talker: 55})
    cost, unmetered = await interview.transport()
    lost = nano(15) + traffic(15 * AUDIO_BYTES_PER_SEC)
    assert abs(cost - before[0] - lost) <= Decimal("2e-9")
    assert unmetered - before[1] == cost - before[0]
    await interview.tell(left_seconds={talker: 40})
    assert await interview.transport() == before
    assert await interview.posted() == {"participant_seconds": 80, "egress_bytes": 80 * AUDIO_BYTES_PER_SEC}


async def test_cloud_counts_traffic_in_steps_of_each_connection(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin(cloud=PRICED)
    people = {"participant-1/PA_1": 30, "agent-AJ_1/PA_2": 30}
    await interview.tell(mode="cloud", participant_seconds=people)
    cost, unmetered = await interview.transport()
    assert unmetered == traffic(2 * CLOUD_BYTES)
    assert cost == nano(120, CLOUD_PER_HOUR) + traffic(2 * CLOUD_BYTES)


@pytest.mark.parametrize(
    ("cameras", "egress", "video", "missing"),
    [
        (False, {"free": True}, None, None),
        (False, {"absent": True}, None, None),
        (False, None, None, "egress_bytes"),
        (True, {"free": True}, None, "video_track_seconds"),
        (True, {"free": True}, {"absent": True}, None),
        (True, {"free": True}, {"free": True}, None),
    ],
)
async def test_a_meter_without_a_price_refuses_while_free_and_absent_are_lawful(
    stand: Stand, cameras: bool, egress: Any, video: Any, missing: str | None
) -> None:
    """Of what can come: video tracks only where the Project lets participants show more than a voice."""
    meters = {"egress_bytes": egress, "video_track_seconds": video}
    card = minutes("selfhosted", PER_HOUR, **meters)
    operator = stand.client(OPERATOR)
    await operator.put_rate_card("sh", card)
    media = {"microphoneOnly": not cameras}
    push = project_push(budget={"includeTransport": True}, media=media)
    status = await operator.put_project("study", "media", push)
    opened = stand.client(GATEWAY).open_session(opening("media"))
    if missing is None:
        await opened
        return
    with pytest.raises(Refused, match=missing):
        await opened
    [price] = status.prices
    assert (price.known, missing in price.reason) == (False, True), "the Project says why"


async def test_the_reserve_covers_traffic_and_video_of_a_full_room_at_the_dearer_medium(stand: Stand) -> None:
    held = []
    for cloud, cameras in (({}, False), (PRICED, False), (PRICED, True)):
        operator = stand.client(OPERATOR)
        await operator.put_rate_card("sh", minutes("selfhosted", PER_HOUR))
        await operator.put_rate_card("lk", minutes("livekit", CLOUD_PER_HOUR, **cloud))
        push = project_push("10", "5", budget={"includeTransport": True}, media={"microphoneOnly": not cameras})
        name = f"media-{len(held)}"
        await operator.put_project("study", name, push)
        session = opening(name)
        await stand.client(GATEWAY).open_session(session)
        rows = await stand.sql("SELECT transport_hold_usd FROM sessions WHERE id = $1", session.session_id)
        held.append(rows[0]["transport_hold_usd"])
    # Ten connections, two begun minutes each: 80 s may touch as many.
    assert held[0] == nano(10 * 120, CLOUD_PER_HOUR)
    assert held[1] == held[0] + traffic(10 * CLOUD_BYTES)
    video = nano(2 * 80, Decimal("0.06"))
    assert held[2] > held[1] + video + traffic(2 * 80 * 9 * VIDEO_BYTES_PER_SEC) - Decimal("0.001")


async def test_whom_nobody_has_seen_leave_is_told_to_the_gateway_that_starts(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    first, agent, gone, left = "participant-1/PA_1", "agent-AJ_1/PA_2", "participant-1/PA_3", "participant-1/PA_4"
    joined = dict.fromkeys((first, agent, gone, left), 1_764_400_000_123)
    seen = dict.fromkeys(joined, 30)
    await interview.tell(participant_seconds=seen, joined_at_ms=joined, video_seconds={first: 7})
    await interview.tell(gone_seconds={gone: 40})
    await interview.tell(left_seconds={left: 33})
    await interview.close()
    (session,) = await interview.gateway.unended()
    assert (session.session_id, session.project, session.media.mode) == (str(interview.id), "media", "selfhosted")
    assert {(c.key, c.joined_at_ms, c.seen_sec, c.video_sec) for c in session.connections} == {
        (first, 1_764_400_000_123, 30, 7),
        (agent, 1_764_400_000_123, 30, 0),
    }
    await interview.tell(gone_seconds={first: 90, agent: 90})
    assert await interview.gateway.unended() == ()
    cost, unmetered = await interview.transport()
    assert abs(cost - nano(123 + 130)) <= Decimal("1e-9")
    assert abs(unmetered - nano(130)) <= Decimal("2e-9"), "the bound, until a late webhook or the bill comes"


async def test_a_month_of_the_plan_shows_what_is_used_and_left(stand: Stand) -> None:
    console = stand.client(CONSOLE)
    assert await console.plan_report() == (), "no card, no plan"
    interview = Interview(stand)
    await interview.begin(cloud=PRICED)
    card = minutes("livekit", CLOUD_PER_HOUR, **PRICED)
    plan = {"monthlyFee": "50", "freeAllowance": {"participant_seconds": {"quantity": 120, "per": "Month"}}}
    document = card.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["entries"][0] |= plan
    await stand.client(OPERATOR).put_rate_card("lk", RateCardSpec.model_validate(document))
    people = {"participant-1/PA_1": 61, "agent-AJ_1/PA_2": 59}
    await interview.tell(mode="cloud", participant_seconds=people)
    await interview.tell(participant_seconds={"observer-1/PA_3": 600})  # on own nodes: no business of the plan
    (row,) = await console.plan_report()
    assert (row.month, row.card, row.fee_usd) == (f"{datetime.now(UTC):%Y-%m}", "lk", 50)
    assert (row.included_minutes, row.used_minutes, row.left_minutes) == (2, 3, 0)
    assert (row.included_bytes, row.used_bytes, row.left_bytes) == (None, 2 * CLOUD_BYTES, None)
    assert row.beyond_usd == nano(60, CLOUD_PER_HOUR) + traffic(2 * CLOUD_BYTES)
    assert await console.plan_report(since="2025-01-01") == (row,), "from the first session on"
    assert await console.plan_report(until="2025-01-01") == ()
