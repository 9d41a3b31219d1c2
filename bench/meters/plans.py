"""What happens in one session: drawn from a seed, pure. Times are seconds; the simulator is compressed tenfold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Vendor = Literal["openai", "google"]
Ending = Literal["quiet", "mid_answer", "too_late", "dies"]

# Fault of the simulator to the range of its seconds.
FAULTS: dict[Vendor, dict[str, tuple[float, float]]] = {
    "openai": {
        "late_done": (0.2, 1.2),
        "duplicate_done": (0.0, 0.0),
        "drop_socket": (0.2, 2.0),
        "late_created": (0.2, 1.2),
        "failed": (0.2, 2.0),
    },
    "google": {
        "late_done": (0.2, 1.0),
        "duplicate_done": (0.0, 0.0),
        "drop_socket": (0.2, 2.0),
        "late_created": (0.2, 1.2),
        "late_usage": (0.2, 1.2),
        "go_away": (4.0, 4.5),
    },
}
# With a turn in the middle of an answer this much of it has been heard.
BARGE_IN = (0.0, 0.3)
ENDINGS: tuple[Ending, ...] = ("quiet", "mid_answer", "too_late", "dies")
ENDING_WEIGHTS = (60, 20, 8, 12)


@dataclass(frozen=True, slots=True)
class Turn:
    """The user speaks for `speech` seconds. `barge_in`: into the answer of this turn, after so long; None = not."""

    speech: float
    faults: dict[str, float]
    barge_in: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One session. `brief`: under an output cap that cuts answers; `lost_replies`: share of the ledger's answers that
    never come; `lost_close`: that of its last one is lost, too.
    """

    number: int
    vendor: Vendor
    brief: bool
    turns: tuple[Turn, ...]
    ending: Ending
    lost_replies: float
    lost_close: bool

    def counted(self) -> Counter[str]:
        """What goes wrong, by name."""
        found = Counter(fault for turn in self.turns for fault in turn.faults)
        found["barge_in"] = sum(turn.barge_in is not None for turn in self.turns)
        found["output_cap"] = int(self.brief)
        found[f"ends_{self.ending}"] = int(self.ending != "quiet")
        found["lost_close"] = int(self.lost_close)
        return +found

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def load(told: dict[str, Any]) -> Plan:
    """Of `dump`."""
    return Plan(**{**told, "turns": tuple(Turn(**turn) for turn in told["turns"])})


def plan(seed: int, number: int, vendor: Vendor) -> Plan:
    """The same for the same arguments."""
    dice = random.Random(f"{seed}/{vendor}/{number}")
    turns = [_turn(dice, vendor) for _ in range(dice.randint(4, 6))]
    return Plan(
        number=number,
        vendor=vendor,
        brief=dice.random() < 0.2,
        turns=tuple(turns),
        ending=dice.choices(ENDINGS, ENDING_WEIGHTS)[0],
        lost_replies=dice.choice((0.0, 0.2, 0.4)),
        lost_close=dice.random() < 0.15,
    )


def _turn(dice: random.Random, vendor: Vendor) -> Turn:
    known = FAULTS[vendor]
    names = dice.sample(sorted(known), dice.choices((0, 1, 2), (30, 55, 15))[0])
    faults = {name: round(dice.uniform(*known[name]), 2) for name in names}
    barge_in = round(dice.uniform(*BARGE_IN), 2) if dice.random() < 0.25 else None
    return Turn(round(dice.uniform(0.8, 2.5), 2), faults, barge_in)


def plans(seed: int, per_vendor: int) -> list[Plan]:
    """All sessions, both vendors in turns."""
    vendors: tuple[Vendor, ...] = ("openai", "google")
    return [plan(seed, number, vendor) for number in range(per_vendor) for vendor in vendors]


def counted(of: Iterable[Plan]) -> dict[str, int]:
    """What went wrong in all of them, by name."""
    total: Counter[str] = Counter()
    for one in of:
        total += one.counted()
    return dict(sorted(total.items()))
