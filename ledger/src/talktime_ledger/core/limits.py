"""Soft and hard limits of session, participant and project, as an ordered chain of pure rules; the first that speaks
decides.

Hard = the next response does not fit: limit - posted < W + C. Soft = posted >= min(softPercent x limit, limit - C - 3
W).
Project hard comes before everything, also before a session's soft limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum

from talktime_ledger.core.money import ZERO, shown
from talktime_ledger.resources.project import OnProjectSoft

UNKNOWN_BURN_MINUTES = Decimal(3)


class LimitState(StrEnum):
    """As on the wire."""

    OK = "ok"
    SOFT = "soft"
    HARD = "hard"


@dataclass(frozen=True, slots=True)
class Level:
    """One cap and this session's place under it, USD. `left` = what this session can still use: limit - posted - what
    OTHERS have reserved.
    """

    limit: Decimal
    posted: Decimal
    left: Decimal
    soft_percent: int = 100


@dataclass(frozen=True, slots=True)
class Position:
    """All that the rules look at. `w`: what must be held to let the session go on (2 W where the provider answers by
    itself).
    """

    session: Level
    project: Level
    participant: Level | None
    w: Decimal
    goodbye: Decimal
    in_flight: Decimal = ZERO
    project_soft_ends_sessions: bool = False
    paused: bool = False
    transport_short: bool = False

    def fits(self, level: Level) -> bool:
        """Whether one more response and the goodbye fit, after what is in flight."""
        return level.left - self.in_flight >= self.w + self.goodbye


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, an enumerated reason and a sentence for operators and backends (never for participants)."""

    state: LimitState
    reason: str
    sentence: str


Rule = Callable[[Position], Verdict | None]


def project_hard(at: Position) -> Verdict | None:
    """The project budget cannot carry one more response."""
    if at.fits(at.project):
        return None
    return Verdict(LimitState.HARD, "ProjectHard", _hard_sentence("project budget", at.project, at))


def transport_hard(at: Position) -> Verdict | None:
    """The transport reserve could not be filled up again: nobody would pay for the participants' minutes."""
    if not at.transport_short:
        return None
    return Verdict(LimitState.HARD, "ProjectHard", "the limits do not carry the participants' next minute of transport")


def participant_hard(at: Position) -> Verdict | None:
    """The participant cap cannot carry one more response."""
    if at.participant is None or at.fits(at.participant):
        return None
    return Verdict(LimitState.HARD, "ParticipantHard", _hard_sentence("participant limit", at.participant, at))


def session_hard(at: Position) -> Verdict | None:
    """The session cap cannot carry one more response."""
    if at.fits(at.session):
        return None
    return Verdict(LimitState.HARD, "SessionHard", _hard_sentence("session limit", at.session, at))


def project_soft(at: Position) -> Verdict | None:
    """The project's soft limit is latched and its policy ends live sessions."""
    if not at.project_soft_ends_sessions:
        return None
    return Verdict(
        LimitState.SOFT, "ProjectSoft", f"project reached {at.project.soft_percent}% of {shown(at.project.limit)} USD"
    )


def paused(at: Position) -> Verdict | None:
    """A paused Project lets live sessions come to an end (a deleted one does not hurry them: ADR 9)."""
    if not at.paused:
        return None
    return Verdict(LimitState.SOFT, "Paused", "the Project is paused")


def participant_soft(at: Position) -> Verdict | None:
    """The participant is near their cap."""
    if at.participant is None or at.participant.posted < soft_threshold(at.participant, at.w, at.goodbye):
        return None
    return Verdict(LimitState.SOFT, "ParticipantSoft", _soft_sentence("participant", at.participant))


def session_soft(at: Position) -> Verdict | None:
    """The session is near its cap."""
    if at.session.posted < soft_threshold(at.session, at.w, at.goodbye):
        return None
    return Verdict(LimitState.SOFT, "SessionSoft", _soft_sentence("session", at.session))


CHAIN: tuple[Rule, ...] = (
    project_hard,
    transport_hard,
    participant_hard,
    session_hard,
    paused,
    project_soft,
    participant_soft,
    session_soft,
)


def judge(at: Position) -> Verdict:
    """The first rule that speaks, else OK."""
    for rule in CHAIN:
        verdict = rule(at)
        if verdict is not None:
            return verdict
    return Verdict(LimitState.OK, "", "")


def soft_threshold(level: Level, w: Decimal, goodbye: Decimal) -> Decimal:
    """USD posted at which the soft limit is reached: softPercent of the limit, or earlier so that three responses still
    fit.
    """
    return min(level.limit * level.soft_percent / 100, max(ZERO, level.limit - goodbye - 3 * w))


def budget_soft_reached(posted: Decimal, amount: Decimal, soft_percent: int) -> bool:
    """Whether a project account has reached its soft percentage; latched by the caller per (project, period, budget
    generation).
    """
    return posted >= amount * soft_percent / 100


def project_soft_ends_live(policy: OnProjectSoft, available: Decimal, held: Decimal, remainder: Decimal) -> bool:
    """Whether a latched project soft limit ends live sessions: always, if what is there cannot carry them, or never."""
    if policy is OnProjectSoft.WRAP_UP_LIVE:
        return True
    return policy is OnProjectSoft.WRAP_UP_IF_SHORT and max(ZERO, available) + held < remainder


def wrap_up_minutes(left: Decimal, w: Decimal, goodbye: Decimal, burn_per_minute: Decimal) -> int:
    """Whole minutes of talk that the money left carries at the present burn, keeping W and C: 1..10 (less than one is
    told as one). Without a burn a minute may cost a worst case, and more than three are not promised.
    """
    usable, most = left - w - goodbye, Decimal(10)
    if burn_per_minute <= 0:
        burn_per_minute, most = w, UNKNOWN_BURN_MINUTES
    if burn_per_minute <= 0:
        return int(most)
    minutes = (usable / burn_per_minute).to_integral_value(rounding=ROUND_FLOOR)
    return int(min(most, max(Decimal(1), minutes)))


def _hard_sentence(what: str, level: Level, at: Position) -> str:
    return (
        f"{what} of {shown(level.limit)} USD: {shown(max(ZERO, level.left - at.in_flight))} left for this session, "
        f"the next response may cost {shown(at.w)} and the goodbye {shown(at.goodbye)}"
    )


def _soft_sentence(what: str, level: Level) -> str:
    return f"{what} has used {shown(level.posted)} of {shown(level.limit)} USD"
