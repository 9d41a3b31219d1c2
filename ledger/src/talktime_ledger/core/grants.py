"""How much to reserve: C from the first grant, what is in flight, W, and one minute of burn; shrinking, never under W;
else FINAL.

All amounts USD. The caller makes the result true with one guarded statement per account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from talktime_ledger.core.money import ZERO, ratio, usd

# Before a burn is known a minute is assumed to cost half a worst case.
OPENING_BURN_SHARE = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Need:
    """What a session needs to go on. `w`: worst case of the next response(s) to hold; `fixed`: C (and the transport
    reserve, if any).
    """

    fixed: Decimal
    w: Decimal
    in_flight: Decimal = ZERO
    burn_per_minute: Decimal | None = None
    outage_reserve: Decimal = ZERO

    @property
    def least(self) -> Decimal:
        """Under this no response may start."""
        return usd(self.fixed + self.in_flight + self.w)

    @property
    def going(self) -> Decimal:
        """One minute of burn, at least half of W so that renewals stay rare."""
        burn = self.burn_per_minute if self.burn_per_minute is not None else ZERO
        return usd(max(burn, self.w * OPENING_BURN_SHARE))

    @property
    def spare(self) -> Decimal:
        """What goes on top of the least; and what is to last through an outage."""
        return usd(self.going + self.outage_reserve)


@dataclass(frozen=True, slots=True)
class GrantPlan:
    """`delta` >= 0 to add to what is held; `final`: nothing beyond will come; `sufficient`: the least
    is held afterwards.
    """

    delta: Decimal
    final: bool
    sufficient: bool


def plan_grant(
    need: Need, held: Decimal, headroom: Sequence[Decimal], shared: Decimal, open_sessions: int
) -> GrantPlan:
    """Plans a grant.

    held: reserved now, after this request's usage was taken from it. headroom: what session and participant caps still
    allow on top of
    `held` (exact, they are this session's or nearly so). shared: what the project account has available on top of
    `held`.
    The spare shrinks to this session's part of what the project has, so that the last money is spread over the open
    sessions.
    """
    room = min([*headroom, shared])
    part = ratio(max(ZERO, shared), Decimal(max(1, open_sessions)))
    target = usd(need.least + min(need.spare, part))
    if target <= held:
        # Nothing is taken back while the agent may already be counting on it; what is held is used up.
        return GrantPlan(ZERO, final=room <= 0, sufficient=True)
    if room >= target - held:
        return GrantPlan(usd(target - held), final=False, sufficient=True)
    if held + room >= need.least:
        # The last of it: one guarded step to what is there; whether more can ever come is said by `final`.
        return GrantPlan(usd(max(ZERO, room)), final=True, sufficient=True)
    sufficient = held >= need.least
    if not sufficient and held < need.fixed <= held + room:
        # Not one more response; with the goodbye alone it can still end with a word (a resumed session, as a rule).
        return GrantPlan(usd(need.fixed - held), final=True, sufficient=False)
    return GrantPlan(ZERO, final=True, sufficient=sufficient)


def set_aside(need: Need, held: Decimal, final: bool) -> Decimal:
    """USD of `held` that are the outage reserve: the agent spends them only while the ledger cannot be reached.

    What is short is taken from the reserve first, so that it never keeps a response from starting that the ledger would
    have paid. With nothing beyond (`final`) it is ordinary money: there is nothing left that an outage could withhold,
    and a session ends at limit - W - C with a reserve as without.
    """
    if final:
        return ZERO
    return usd(min(need.outage_reserve, max(ZERO, held - need.least - need.going)))


def admit_floor(configured: Decimal | None, w: Decimal, goodbye: Decimal, session_limit: Decimal) -> Decimal:
    """USD that must be available to admit a session: as configured, never under W + C; default max(W + C, half the
    session limit).
    """
    if configured is not None:
        return max(configured, w + goodbye)
    return max(w + goodbye, usd(session_limit / 2))


def next_burn(burn: Decimal, spent: Decimal, seconds: Decimal) -> Decimal:
    """USD per minute, smoothed over about a minute: the newer the longer the step was."""
    if seconds <= 0:
        return burn
    weight = seconds / (seconds + 60)
    return usd(burn + weight * (spent * 60 / seconds - burn))
