"""What happens to the enforcers, drawn per seed: who comes when, what every response truly costs, which agents die.

Times are virtual seconds since the study opened, money is USD. A turn stands for more than one of a real interview (at
most nine transactions of usage a session), so contexts are already long when a session begins.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from talktime_agent.gate import Bounds

from bench.enforcers import study

MAX_TURNS = 9
SECONDS_TO_BEGIN = 2.0
OPEN_FOR_SEC = 2700.0
"""Arrivals end here: by then the money has long been gone and the last lost agent was swept."""


class Report(StrEnum):
    """When the usage of a response reaches the ledger: right away, or late, in the middle of the next response."""

    AT_ONCE = "at_once"
    LATE = "late"


class Hitch(StrEnum):
    """What the network does to the request: nothing, its reply is lost and it is sent again, an old one comes again."""

    NONE = "none"
    REPLY_LOST = "reply_lost"
    ECHO = "echo"


class Fate(StrEnum):
    """What becomes of a crashed agent's usage: never told, replayed by its pod within seconds, or after the sweep."""

    LOST = "lost"
    REPLAYED = "replayed"
    REPLAYED_LATE = "replayed_late"


@dataclass(frozen=True, slots=True)
class Turn:
    """The participant speaks for `heard_sec` after `pause_sec`; the answer takes `answer_sec` and costs `cost`."""

    pause_sec: float
    heard_sec: float
    answer_sec: float
    meters: dict[str, int]
    heard_meters: dict[str, int]
    cost: Decimal
    heard_cost: Decimal
    context_before: int
    report: Report
    hitch: Hitch


@dataclass(frozen=True, slots=True)
class Crash:
    """The agent dies in the middle of the response of turn `turn`; its usage is replayed `replay_sec` later."""

    turn: int
    fate: Fate
    replay_sec: float


@dataclass(frozen=True, slots=True)
class Visit:
    """One participant's session, if it is admitted and nothing stops it."""

    index: int
    at: float
    turns: tuple[Turn, ...]
    crash: Crash | None
    heeds_wrap_up: bool
    wrap_up_sec: float
    goodbye_meters: dict[str, int]
    goodbye_cost: Decimal
    open_hitch: Hitch
    close_hitch: Hitch


@dataclass(frozen=True, slots=True)
class Trace:
    """One run."""

    seed: int
    visits: tuple[Visit, ...]

    @property
    def spent(self) -> Decimal:
        """USD that earlier sessions have cost."""
        return study.spent(len(self.visits))


def draw(seed: int, sessions: int, bounds: Bounds) -> Trace:
    """The trace of a seed."""
    dice = random.Random(f"overshoot/{seed}")
    times = _arrivals(dice, sessions)
    return Trace(seed, tuple(_visit(dice, index, at, bounds) for index, at in enumerate(times)))


def _arrivals(dice: random.Random, sessions: int) -> list[float]:
    """Half come when the study opens, three of ten in bursts soon after (a reminder, a class), the others at any time:
    most of these meet a budget that is spent.
    """
    opening = [dice.uniform(0, 60) for _ in range(sessions // 2)]
    bursts = [dice.uniform(60, 400) for _ in range(4)]
    in_bursts = [dice.choice(bursts) + dice.uniform(0, 5) for _ in range(sessions * 3 // 10)]
    others = [dice.uniform(0, OPEN_FOR_SEC) for _ in range(sessions - len(opening) - len(in_bursts))]
    return sorted([*opening, *in_bursts, *others])


def _visit(dice: random.Random, index: int, at: float, bounds: Bounds) -> Visit:
    turns, context = [], dice.randint(study.CAPS.context_tokens // 4, study.CAPS.context_tokens)
    costly = dice.random() < 0.25
    for _ in range(dice.randint(5, MAX_TURNS)):
        turn, context = _turn(dice, context, costly, bounds)
        turns.append(turn)
    crash = None
    if dice.random() < 0.1:
        fate = dice.choices([Fate.LOST, Fate.REPLAYED, Fate.REPLAYED_LATE], [2, 1, 1])[0]
        replay = dice.uniform(1, 10) if fate is Fate.REPLAYED else dice.uniform(400, 900)
        crash = Crash(dice.randrange(len(turns)), fate, replay)
    goodbye = {"text_in": dice.randint(60, 120), "audio_out": dice.randint(60, 180), "text_out": dice.randint(10, 50)}
    return Visit(
        index,
        at,
        tuple(turns),
        crash,
        heeds_wrap_up=dice.random() < 0.85,
        wrap_up_sec=dice.uniform(120, 180),
        goodbye_meters=goodbye,
        goodbye_cost=study.cost(goodbye, study.MODEL, bounds),
        open_hitch=_hitch(dice),
        close_hitch=_hitch(dice),
    )


def _hitch(dice: random.Random) -> Hitch:
    return dice.choices([Hitch.NONE, Hitch.REPLY_LOST, Hitch.ECHO], [92, 5, 3])[0]


def _turn(dice: random.Random, context: int, costly: bool, bounds: Bounds) -> tuple[Turn, int]:
    """One turn on a conversation of `context` tokens, and the conversation's length after it.

    Nine tenths of the conversation come from the provider's cache, except after a cache miss (every sixth response, in
    a quarter of the sessions nearly always). Answers use up to the whole output cap.
    """
    heard_sec = dice.uniform(4, 40)
    answer_sec = min(float(study.CAPS.response_seconds), dice.lognormvariate(3.3, 0.5))
    heard, spoken = round(heard_sec * 10), round(answer_sec * 20)
    conversation = min(study.CAPS.context_tokens, context + heard)
    missed = dice.random() < (0.9 if costly else 0.16)
    cached = 0 if missed else min(conversation, round(context * 0.9))
    prompt = len(study.INSTRUCTIONS) // 4
    meters = {
        "text_in": prompt if missed else 0,
        "text_cached_in": 0 if missed else prompt,
        "audio_in": conversation - cached,
        "audio_cached_in": cached,
        "audio_out": spoken,
        "text_out": round(answer_sec * 4),
    }
    heard_meters = {"audio_in": heard, "text_in": 8, "text_out": round(heard_sec * 3.5)}
    turn = Turn(
        pause_sec=dice.uniform(1, 15),
        heard_sec=heard_sec,
        answer_sec=answer_sec,
        meters=meters,
        heard_meters=heard_meters,
        cost=study.cost(meters, study.MODEL, bounds),
        heard_cost=study.cost(heard_meters, study.HEARD, bounds),
        context_before=context,
        report=Report.LATE if dice.random() < 0.15 else Report.AT_ONCE,
        hitch=_hitch(dice),
    )
    return turn, min(study.CAPS.context_tokens, conversation + spoken + meters["text_out"])
