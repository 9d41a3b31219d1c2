"""The conversation of a session: all of it is the prompt of every generation, until compression drops its beginning."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from talktime_simulator.tokens import Tokens

CONTEXT_LIMIT = 131_072
MOST_HANDLES = 5_000


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user or the model said at once; audio stays audio."""

    user: bool
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Compression:
    """Sliding window: above `trigger` tokens before the running turn, the oldest turns go until `target` is held."""

    trigger: int
    target: int


def compressed(turns: tuple[Turn, ...], head: Tokens, rule: Compression | None) -> tuple[Turn, ...]:
    """`turns` as the window keeps them; the rest begins at a turn of the user, `head` (instructions) always stays."""
    if rule is None or (head + total(turns)).total <= rule.trigger:
        return turns
    kept = turns
    while kept and ((head + total(kept)).total > rule.target or not kept[0].user):
        kept = kept[1:]
    return kept


def total(turns: tuple[Turn, ...]) -> Tokens:
    return sum((turn.tokens for turn in turns), Tokens())


@dataclass(slots=True)
class Context:
    """`running` is what came since the last answer. A copy of `history` is what a resumption handle stands for."""

    history: tuple[Turn, ...] = ()
    answers: int = 0
    running: list[Turn] = field(default_factory=list)

    def hear(self, tokens: Tokens) -> None:
        """The user said or wrote something."""
        self.running.append(Turn(True, tokens))

    def recall(self, tokens: Tokens) -> None:
        """The client says what the model said."""
        self.running.append(Turn(False, tokens))

    def prompt(self, head: Tokens, rule: Compression | None) -> Tokens:
        """Takes the running turn over and returns the whole input of its answer."""
        self.history = (*compressed(self.history, head, rule), *self.running)
        self.running.clear()
        return head + total(self.history)

    def answered(self, tokens: Tokens) -> None:
        """The model's answer, as far as it was generated."""
        if tokens.total:
            self.history = (*self.history, Turn(False, tokens))
            self.answers += 1

    def saved(self) -> Context:
        """What a resumed session goes on with."""
        return Context(self.history, self.answers)


class Resumables:
    """Contexts by resumption handle, the eldest forgotten first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Context] = OrderedDict()

    def keep(self, handle: str, context: Context) -> None:
        self._kept[handle] = context
        while len(self._kept) > MOST_HANDLES:
            self._kept.popitem(last=False)

    def get(self, handle: str) -> Context | None:
        known = self._kept.get(handle)
        return None if known is None else known.saved()
