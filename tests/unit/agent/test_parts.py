"""The small pure parts: limits, observers' message, spool replay, joins, presence, clip, keys."""

from __future__ import annotations

import array
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from talktime_agent.clip import BYTES_PER_SECOND, clip_key, closing_prompt, shortened, usable
from talktime_agent.interruption import Interruption
from talktime_agent.joins import JoinPace
from talktime_agent.limits import Situation, Step, next_step, wrap_up_text
from talktime_agent.observers import CostNow, ObserverChannel, cost_update
from talktime_agent.presence import LEFT_SECONDS, Presence
from talktime_agent.reports import harmless
from talktime_agent.settings import AgentSettings, ProviderKeyMissingError, provider_key
from talktime_agent.spool import Spool, orphans, recover
from talktime_ledger.core.usage import UsageKind
from talktime_ledger.core.worst_case import CLOSING_PROMPT_BYTES
from talktime_ledger.resources.project import DEFAULT_WRAP_UP, OnLedgerOutage
from talktime_ledger.wire import SessionEvent, Usage

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def situation(**changes: Any) -> Situation:
    usual: dict[str, Any] = {
        "wrap_up_told": False, "wrapped_up": False, "exhausted": False, "expired": False, "fenced": False,
        "on_outage": OnLedgerOutage.DRAIN,
    }  # fmt: skip
    return Situation(**(usual | changes))


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (situation(), (Step.GO_ON, "")),
        (situation(wrap_up_told=True), (Step.WRAP_UP, "")),
        (situation(wrap_up_told=True, wrapped_up=True), (Step.GO_ON, "")),
        (situation(wrap_up_told=True, exhausted=True), (Step.CLOSE, "budget")),
        (situation(expired=True), (Step.CLOSE, "ledger_outage")),
        (situation(expired=True, on_outage=OnLedgerOutage.TERMINATE), (Step.CLOSE, "ledger_outage")),
        (situation(outage=True), (Step.GO_ON, "")),
        (situation(outage=True, on_outage=OnLedgerOutage.TERMINATE), (Step.CLOSE, "ledger_outage")),
        (situation(outage=True, starved=True), (Step.CLOSE, "ledger_outage")),
        (situation(starved=True), (Step.GO_ON, "")),
        (situation(expired=True, lapsed=True), (Step.LEAVE, "ledger_outage")),
        (situation(exhausted=True, fenced=True), (Step.LEAVE, "fenced")),
    ],
)
def test_hard_goes_before_soft_and_the_wrap_up_is_given_once(now: Situation, step: tuple[Step, str]) -> None:
    assert next_step(now) == step


def test_the_wrap_up_names_its_minutes_and_leaves_other_braces_alone() -> None:
    assert "in the next 2 minutes" in wrap_up_text(DEFAULT_WRAP_UP, 2)
    assert wrap_up_text("{a} {minutes}", 1) == "{a} 1"


def test_a_cost_update_has_exactly_the_agreed_fields() -> None:
    now = CostNow(Decimal("0.01234567"), 120, 80, 30.04, Decimal("0.1"), "soft")
    assert json.loads(cost_update(now)) == {
        "type": "cost_update", "total_usd": 0.0123, "per_minute_usd": 0.0247, "audio_in_tokens": 120,
        "audio_out_tokens": 80, "elapsed_sec": 30.0, "budget_usd": 0.1, "limit_state": "soft",
    }  # fmt: skip


async def test_cost_goes_to_exactly_the_observers_and_never_to_all() -> None:
    sent: list[dict[str, Any]] = []

    class Room:
        async def publish_data(self, payload: bytes | str, **how: Any) -> None:
            sent.append(how)

    await ObserverChannel(Room(), ["observer-1", "observer-2"]).send(CostNow(Decimal(0), 0, 0, 0, Decimal(1), "ok"))
    assert sent == [
        {"reliable": True, "destination_identities": ["observer-1", "observer-2"], "topic": "talktime.cost"}
    ]
    for nobody in ([], [""]):
        with pytest.raises(ValueError, match="empty"):
            ObserverChannel(Room(), nobody)


def usage(key: str) -> Usage:
    return Usage(
        key=key, kind=UsageKind.RESPONSE, provider="primary", model="m", meters={"audio_in": 5}, occurred_at=AT
    )


def test_a_dead_session_owes_what_was_not_answered_and_the_bound_of_what_was_open(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s1", 2, 100.0)
    spool.write("hold", 101.0, key="create_1", usd="0.02")
    spool.write("hold", 101.5, key="sess/r1", usd="0.02")
    spool.write("release", 101.5, key="create_1")
    spool.write("usage", 102.0, usage=usage("sess/r0").model_dump(mode="json"))
    spool.write("usage", 103.0, usage=usage("item/0").model_dump(mode="json"))
    spool.write("event", 103.0, event=SessionEvent(name="first_audio", at=AT).model_dump(mode="json"))
    spool.write("sent", 104.0, n=3)
    spool.write("acked", 105.0, n=3, keys=["sess/r0"], events=1)
    spool.write("turn", 106.0, turns=4)
    assert list(orphans(tmp_path)) == []
    spool.abandon()
    with spool.path.open("a") as file:
        file.write('{"t": "usage", "at": 107')

    (orphan,) = orphans(tmp_path)
    left = orphan.leftover
    assert left is not None
    assert (left.session, left.epoch, left.n, left.turns) == ("s1", 2, 3, 4)
    assert [item.key for item in left.usages] == ["item/0"]
    assert left.holds == {"sess/r1": Decimal("0.02")}
    assert left.events == ()
    assert left.reason is None
    orphan.done()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_without_a_header_is_nothing() -> None:
    assert recover(["", "garbage"]) is None


def test_joins_keep_a_distance_and_a_crowded_pod_declines() -> None:
    pace = JoinPace(2.0, lambda: 10.0)
    assert [pace.slot() for _ in range(4)] == [0.0, 2.0, 4.0, None]
    pace = JoinPace(2.0, lambda: 10.0)
    assert [pace.slot(resumed=True) for _ in range(3)] == [0.0, 1.0, 2.0], "who was interrupted waits half as long"


def test_presence_waits_for_a_participant_who_may_come_back() -> None:
    now = [0.0]
    presence = Presence("participant-1", rejoin_grace=20, reconnect_limit=60, monotonic=lambda: now[0])
    presence.went("observer-1", on_purpose=True)
    assert presence.there
    presence.went("participant-1", on_purpose=False)
    now[0] = 19
    assert presence.over() is None
    presence.joined("participant-1")
    now[0] = 100
    assert presence.over() is None
    presence.went("participant-1", on_purpose=False)
    now[0] = 121
    assert presence.over() == "participant_left"


def test_who_leaves_on_purpose_is_gone_soon_unless_that_was_on_the_way_to_another_connection() -> None:
    now = [0.0]
    presence = Presence("participant-1", rejoin_grace=20, reconnect_limit=60, monotonic=lambda: now[0])
    presence.went("participant-1", on_purpose=True)
    now[0] = LEFT_SECONDS - 1
    assert (presence.over(), presence.there) == (None, False)
    presence.joined("participant-1")
    now[0] = 100
    assert (presence.over(), presence.there) == (None, True)
    presence.went("participant-1", on_purpose=True)
    now[0] += LEFT_SECONDS + 1
    assert presence.over() == "participant_left"
    presence.joined("participant-1")
    presence.went("participant-1", on_purpose=False)
    now[0] += LEFT_SECONDS + 1
    assert presence.over() is None, "the one before says nothing about this one"


def test_who_goes_while_our_own_path_is_down_has_not_left() -> None:
    now = [0.0]
    presence = Presence("p", rejoin_grace=20, reconnect_limit=60, monotonic=lambda: now[0])
    presence.down()
    presence.went("p", on_purpose=False)
    now[0] = 50
    assert presence.over() is None
    presence.up()
    now[0] = 65
    assert presence.over() is None, "their time runs from our being back"
    now[0] = 71
    assert presence.over() == "participant_left"


def test_a_media_path_that_stays_down_ends_the_session() -> None:
    now = [0.0]
    presence = Presence("participant-1", rejoin_grace=20, reconnect_limit=60, monotonic=lambda: now[0])
    presence.down()
    now[0] = 30
    presence.down()
    assert (presence.over(), presence.there) == (None, False)
    now[0] = 61
    assert presence.over() == "reconnect_timeout"
    presence.up()
    assert presence.over() is None
    presence.ended()
    assert presence.over() == "room_closed"


def tone(seconds: float) -> bytes:
    return array.array("h", [int(8000 * math.sin(i / 10)) for i in range(int(24_000 * seconds))]).tobytes()


def test_a_clip_is_heard_and_at_most_five_seconds() -> None:
    assert usable(tone(1))
    assert not usable(tone(0.2))
    assert not usable(bytes(BYTES_PER_SECOND))
    assert shortened(tone(3)) == tone(3)
    assert len(shortened(tone(8))) == 5 * BYTES_PER_SECOND
    assert abs(int.from_bytes(shortened(tone(8))[-2:], "little", signed=True)) <= 3


def test_a_clip_is_named_by_model_voice_and_words() -> None:
    names = {clip_key("m", "v", "t"), clip_key("m2", "v", "t"), clip_key("m", "v2", "t"), clip_key("m", "v", "t2")}
    assert len(names) == 4


def test_the_prompt_of_the_clip_stays_within_its_bound() -> None:
    line = 'Thank you "very" much.'
    assert len(closing_prompt(line).encode()) - len(line.encode()) <= CLOSING_PROMPT_BYTES
    assert closing_prompt(line).count('"') == 2


def test_a_provider_key_is_found_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"TALKTIME_PROVIDER_KEY_0": "a", "TALKTIME_PROVIDER_KEY_1": "b"}
    assert provider_key("one, two", "two", environ).get_secret_value() == "b"
    for names, provider in (("one,two,three", "three"), ("one", "two")):
        with pytest.raises(ProviderKeyMissingError, match=provider):
            provider_key(names, provider, environ)


def test_a_providers_message_is_told_without_the_key() -> None:
    key = SecretStr("sk-proj-abcdefgh12345678")
    told = harmless("Incorrect API key provided: sk-proj-********5678. You can find it here", key)
    assert told == "Incorrect API key provided: You can find it here"


def test_the_project_must_be_namespaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TALKTIME_PROJECT": "research/study", "TALKTIME_LEDGER_URL": "http://l", "TALKTIME_AGENT_NAME": "tt",
        "LIVEKIT_URL": "http://k", "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = AgentSettings()
    assert (settings.namespace, settings.name, settings.warm_processes) == ("research", "study", 4)
    monkeypatch.setenv("TALKTIME_PROJECT", "study")
    with pytest.raises(ValueError, match="namespace/name"):
        AgentSettings()


def test_what_a_break_cut_short_is_taken_up_once_by_the_agent() -> None:
    talk = Interruption()
    talk.down(silent=False)
    talk.down(silent=True)
    assert talk.up()
    assert not talk.up()
    assert talk.words()
    assert not talk.words()


def test_nobody_begins_after_a_break_in_silence() -> None:
    talk = Interruption()
    talk.down(silent=True)
    assert not talk.up()
    assert not talk.words()


def test_words_that_a_second_break_cut_short_are_owed_again() -> None:
    talk = Interruption()
    talk.down(silent=False)
    assert talk.up()
    talk.down(silent=False)
    assert talk.up()
    assert talk.words()
