"""People leave a room after their session has ended: their last seconds are paid by what was held for them."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from talktime_ledger import wire

from .conftest import GATEWAY, OPERATOR, Stand, opening, project_push, usage
from .test_transport import Interview

KEY = "participant-1/PA_1"


async def ended(stand: Stand) -> Interview:
    """A session that has ended while somebody was in the room."""
    interview = Interview(stand)
    await interview.begin()
    await interview.tell(participant_seconds={KEY: 45})
    await interview.close(usage("a"))
    return interview


async def test_the_last_seconds_fit_into_a_budget_that_is_full_by_then(stand: Stand) -> None:
    interview = await ended(stand)
    account = await stand.account("media")
    assert account["reserved"] > 0 and account["open_sessions"] == 0
    full = account["posted"] + account["reserved"]
    push = project_push(str(full.quantize(Decimal("1e-6")) + Decimal("1e-6")), budget={"includeTransport": True})
    await stand.client(OPERATOR).put_project("study", "media", push)
    await interview.tell(participant_seconds={KEY: 75})
    after = await stand.account("media")
    assert after["posted"] > account["posted"]
    assert after["posted"] + after["reserved"] == full, "paid by what was held"
    await interview.tell(participant_seconds={KEY: 80}, gone_seconds={KEY: 90})
    over = await stand.account("media")
    assert (over["reserved"], over["posted"] > after["posted"]) == (0, True), "everybody has left"
    assert over["posted"] < full
    await stand.assert_laws()
    await interview.tell(left_seconds={KEY: 82})
    assert (await stand.account("media"))["posted"] < over["posted"], "a bound goes back as it came"
    await stand.assert_laws()


async def test_where_nobody_tells_the_end_it_is_released_when_nobody_can_be_there(stand: Stand) -> None:
    interview = await ended(stand)
    held = (await stand.account("media"))["reserved"]
    assert held > 0
    await stand.backdate(interview.id, 1000)
    async with asyncio.timeout(60):
        while (await stand.account("media"))["reserved"]:  # noqa: ASYNC110 - the server sweeps
            await asyncio.sleep(0.05)
    await stand.assert_laws()


async def test_who_has_left_before_the_end_and_a_room_that_never_was_leave_nothing_held(stand: Stand) -> None:
    interview = Interview(stand)
    await interview.begin()
    await interview.tell(participant_seconds={KEY: 45}, gone_seconds={KEY: 60})
    await interview.close()
    assert (await stand.account("media"))["reserved"] == 0
    request, gateway = opening("media"), stand.client(GATEWAY)
    await gateway.open_session(request)
    await gateway.close(request.session_id, wire.Close(epoch=1, reason="room_failed"))
    assert (await stand.account("media"))["reserved"] == 0
    await stand.assert_laws()
