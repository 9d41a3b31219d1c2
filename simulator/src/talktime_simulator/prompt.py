"""What a response is billed to read: truncation of the conversation, and the part of it that a cache still holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .tokens import CHARACTERS_PER_TEXT_TOKEN, Tokens, text_tokens

CACHE_STEP = 64
"""Cached text and cached audio are told in whole steps of this many tokens, each rounded down by itself."""


@dataclass(frozen=True, slots=True)
class Part:
    """One conversation item as the model reads it. A changed item is another part."""

    id: str
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Prompt:
    """The whole input of one response, in the order the model reads it: tools, instructions, items."""

    tools: str
    instructions: str
    parts: tuple[Part, ...]

    @property
    def head(self) -> Tokens:
        """Tokens of tools and instructions: never truncated."""
        return Tokens(text=text_tokens(self.tools) + text_tokens(self.instructions))

    @property
    def tokens(self) -> Tokens:
        return sum((part.tokens for part in self.parts), self.head)


@dataclass(frozen=True, slots=True)
class Truncation:
    """`limit`: most tokens of the conversation after instructions; `ratio`: how much of it stays when it overflows."""

    limit: int
    ratio: float
    enabled: bool = True


class ContextOverflowError(Exception):
    """The conversation is over the limit and truncation is disabled."""


def retained(parts: tuple[Part, ...], policy: Truncation) -> tuple[Part, ...]:
    """The newest parts that stay. The newest one always stays; alone above the limit, its audio is clipped to it.

    Raises ContextOverflowError when truncation is disabled.
    """
    if sum(part.tokens.total for part in parts) <= policy.limit:
        return parts
    if not policy.enabled:
        raise ContextOverflowError
    kept = [clipped(parts[-1], policy.limit)]
    held = kept[0].tokens.total
    for part in reversed(parts[:-1]):
        if held + part.tokens.total > policy.limit * policy.ratio:
            break
        kept.append(part)
        held += part.tokens.total
    return tuple(reversed(kept))


def clipped(part: Part, limit: int) -> Part:
    """`part` with at most `limit` tokens."""
    text = min(part.tokens.text, limit)
    return replace(part, tokens=Tokens(text=text, audio=min(part.tokens.audio, limit - text)))


def cached(prompt: Prompt, previous: Prompt | None) -> Tokens:
    """The unchanged beginning of `prompt` that was in the previous response's input, text and audio apart."""
    if previous is None:
        return Tokens()
    same = _common_text(prompt.tools, previous.tools)
    if prompt.tools == previous.tools:
        same += _common_text(prompt.instructions, previous.instructions)
    audio = 0
    if (prompt.tools, prompt.instructions) == (previous.tools, previous.instructions):
        same = prompt.head.text
        for part, before in zip(prompt.parts, previous.parts, strict=False):
            if part != before:
                break
            same += part.tokens.text
            audio += part.tokens.audio
    return Tokens(text=same - same % CACHE_STEP, audio=audio - audio % CACHE_STEP)


def _common_text(one: str, other: str) -> int:
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return same // CHARACTERS_PER_TEXT_TOKEN
