"""What a break of the media path cut short: the agent takes it up again itself, once, when it can be heard again."""

from __future__ import annotations


class Interruption:
    """Of one interview. Else both sides wait for each other: nobody knows what the other one heard."""

    def __init__(self) -> None:
        self._cut = False
        self._owed = False

    def down(self, *, silent: bool) -> None:
        """The media path breaks; ``silent``: nobody was speaking and no answer was on its way."""
        self._cut = self._cut or not silent

    def up(self) -> bool:
        """The participant hears again; whether the next words are ours to say."""
        cut, self._cut = self._cut, False
        self._owed = self._owed or cut
        return cut

    def words(self) -> bool:
        """Whether the words that are said now are the first after such a break; asked when they begin."""
        owed, self._owed = self._owed, False
        return owed
